"""Codes of a few bits, unpacked from the words and bytes that hold them."""

import torch
from torch import Tensor as Torch

#: the sixteen values of a 4-bit float E2M1, by code (OCP Microscaling Formats, version 1.0, section 5.3.3)
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_WORD = 32


def unpacked(words: Torch, bits: int) -> Torch:
    """Unpack codes of `bits` bits, lowest first and across words where they do not divide 32: `(n, n_words)` int32 → `(n, n_codes)` int32."""
    if _WORD % bits == 0:
        shifts = torch.arange(0, _WORD, bits, dtype=torch.int32)
        return ((words.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).reshape(len(words), -1)
    first = torch.arange(0, words.shape[-1] * _WORD, bits)
    wide = torch.nn.functional.pad(words.long() & 0xFFFFFFFF, (0, 1))
    pairs = wide[:, first // _WORD] | (wide[:, first // _WORD + 1] << _WORD)
    return ((pairs >> (first % _WORD)) & ((1 << bits) - 1)).int()


def nibbles(packed: Torch) -> Torch:
    """Unpack two codes of each byte, the lower first: `(..., n_bytes)` uint8 → `(..., 2 × n_bytes)` int32."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2).int()
