"""Stored rows of a matrix to weights, in torch: the mirror of `IntegerCodec.decode`, bit for bit, on any device.

Codes of `bits` bits stand one after another, the highest bit first, so every 8 / gcd(8, bits) of them begin at a whole byte again. All codes at the
same place of such a period are cut out of their one or two bytes at once. Scale and minimum are widened, and then multiplied and added apart, as
numpy does it: a fused multiply-add would round once where the codec rounds twice.
"""

from math import gcd

import torch
from torch import Tensor as Torch
from torch.nn.functional import pad

from bitwright.compress.floats import FLOAT_TYPES
from bitwright.spaces import BlockFormat, Format, IntegerFormat


def stored_type(form: Format) -> torch.dtype:
    """The type of the tensor that a matrix in this format is kept as: bytes, or the float itself.

    Raises:
        ValueError: no such checkpoint holds this format.
    """
    if isinstance(form, IntegerFormat):
        return torch.uint8
    if isinstance(form, BlockFormat) and form.name in FLOAT_TYPES:
        return FLOAT_TYPES[form.name]
    raise ValueError(f"{form.name} is no format of a native checkpoint")


def expanded(rows: Torch, form: Format, n_columns: int) -> Torch:
    """Weights `(n_rows, n_columns)` of stored `rows`: float32 of bytes `(n_rows, bytes of a row)`; floats are what they are."""
    if not isinstance(form, IntegerFormat):
        return rows
    n_bytes, n_groups = -(-n_columns * form.bits // 8), form.n_groups(n_columns)
    weights = unpacked(rows[:, :n_bytes], form.bits, n_columns).float()
    halves = rows[:, n_bytes:].clone(memory_format=torch.contiguous_format)  # a slice may begin at an odd byte
    halves = halves.view(torch.float16).float()  # (n_rows, 2 · n_groups): the scales, then the minima
    scale, minimum = halves[:, :n_groups], halves[:, n_groups:]
    group = form.group or n_columns
    if n_columns % group == 0:
        weights.view(-1, n_groups, group).mul_(scale[..., None]).add_(minimum[..., None])
        return weights
    return weights.mul_(_wide(scale, group, n_columns)).add_(_wide(minimum, group, n_columns))


def unpacked(packed: Torch, bits: int, n_codes: int) -> Torch:
    """Codes `(n, n_codes)`, uint8, of the bytes `(n, ⌈n_codes · bits / 8⌉)` that they stand in, of 1 to 8 bits each."""
    if bits == 8:
        return packed
    period = 8 // gcd(8, bits)
    n_periods, width = -(-n_codes // period), bits * period // 8
    packed = pad(packed, (0, n_periods * width - packed.shape[1])).reshape(len(packed), n_periods, width)
    codes = packed.new_empty((len(packed), n_periods, period))
    for place in range(period):
        byte, before = divmod(place * bits, 8)
        beyond = before + bits - 8  # bits of the code that stand in the next byte
        high = packed[..., byte] << beyond if beyond > 0 else packed[..., byte] >> -beyond
        code = high | (packed[..., byte + 1] >> (8 - beyond)) if beyond > 0 else high
        codes[..., place] = code & ((1 << bits) - 1)
    return codes.view(len(packed), -1)[:, :n_codes]


def _wide(values: Torch, group: int, n_columns: int) -> Torch:
    """One value for each weight `(n_rows, n_columns)` of one for each group, the last of which may be short."""
    return values.repeat_interleave(group, dim=1)[:, :n_columns]
