"""Positions of kept weights to bytes and back, in torch, on any device; see `SparseFormat`.

The index of a pattern of n of m counts the patterns in lexicographic order of the positions kept. A table has m bytes of 0 and 1 for every index,
read as one integer word, so that unpacking looks one word up for m weights.
"""

from functools import cache
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress.codecs.code_bits import packed_codes, unpacked_codes
from bitwright.compress.models.source import Bytes
from bitwright.spaces import NOfM, Pattern

Mask = NDArray[np.bool_]
_WORDS = {4: torch.int32, 8: torch.int64}


def packed_positions(mask: Mask, pattern: Pattern) -> Bytes:
    """Pack the mask of kept weights `(n_rows, n_columns)` to bytes `(n_rows, n_bytes)`."""
    if not isinstance(pattern, NOfM):
        return np.packbits(mask, axis=1)
    weights = 1 << np.arange(pattern.of)
    index = np.zeros(1 << pattern.of, dtype=np.uint8)
    index[_patterns(pattern) @ weights] = np.arange(len(_patterns(pattern)))
    codes = index[mask.reshape(len(mask), -1, pattern.of) @ weights]
    packed: Bytes = packed_codes(torch.from_numpy(codes), pattern.code_bits).numpy()
    return packed


def unpacked_positions(packed: Torch, pattern: Pattern, n_columns: int) -> Torch:
    """Unpack bytes `(n_rows, n_bytes)` to the mask of kept weights `(n_rows, n_columns)`, bool."""
    if not isinstance(pattern, NOfM):
        return unpacked_codes(packed, 1, n_columns).contiguous().view(torch.bool)
    codes = unpacked_codes(packed, pattern.code_bits, n_columns // pattern.of)
    return _words(pattern).to(packed.device)[codes.int()].view(torch.bool)


@cache
def _patterns(pattern: NOfM) -> NDArray[np.int64]:
    """Return the patterns as rows of 0 and 1 `(C(m, n), m)`."""
    kept = list(combinations(range(pattern.of), pattern.kept))
    found = np.zeros((len(kept), pattern.of), dtype=np.int64)
    np.put_along_axis(found, np.array(kept), 1, axis=1)
    return found


@cache
def _words(pattern: NOfM) -> Torch:
    """Return a word for every index that the bits can hold; those beyond the last pattern are the last."""
    index = np.minimum(np.arange(1 << pattern.code_bits), len(_patterns(pattern)) - 1)
    return torch.from_numpy(_patterns(pattern)[index].astype(np.uint8)).view(_WORDS[pattern.of])[:, 0]
