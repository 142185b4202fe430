"""Positions of kept weights to bytes and back, in torch, on any device; see `SparseFormat`.

The index of a pattern of n of m counts the patterns in lexicographic order of the positions kept. Unpacking looks up the ranks of m weights, or of
the eight of a byte of a mask, in a table, and adds the number of weights that are kept before them: a few vectorised steps.
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
_PRUNED = -(1 << 30)
_WORDS = {1: torch.int32, 2: torch.int64, 4: torch.complex128}  # kept weights of a group -> type as wide as as many floats
_BYTES = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)).long()  # (256, 8)
_COUNTS = _BYTES.sum(1, dtype=torch.int32)  # (256,)


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


def kept_places(packed: Torch, pattern: Pattern, n_columns: int) -> Torch:
    """Unpack bytes `(n_rows, n_bytes)` to the place of each weight among the kept ones of all rows, `(n_rows, n_columns)` int32.

    It is counted from 1, and 0 for a weight that is pruned.
    """
    n_rows, n_kept = len(packed), pattern.n_kept(n_columns)
    first = torch.arange(n_rows, dtype=torch.int32, device=packed.device)[:, None] * n_kept
    ranks = _ranks(pattern).to(packed.device)
    if isinstance(pattern, NOfM):
        codes = unpacked_codes(packed, pattern.code_bits, n_columns // pattern.of)
        before = torch.arange(n_columns, dtype=torch.int32, device=packed.device) // pattern.of * pattern.kept
        return ranks.index_select(0, codes.reshape(-1).int()).view(n_rows, n_columns).add_(before).add_(first).clamp_(min=0)
    index = packed.reshape(-1).int()
    counts = _COUNTS.to(packed.device).index_select(0, index).view(packed.shape)
    before = counts.cumsum(1, dtype=torch.int32).sub_(counts).add_(first)
    places = ranks.index_select(0, index).add_(before.view(-1, 1)).clamp_(min=0)
    return places.view(n_rows, -1)[:, :n_columns]


def kept_inputs(x: Torch, packed: Torch, pattern: NOfM) -> Torch:
    """Return of the inputs `x` `(n_columns,)`, float32, those that each row's kept weights multiply, `(n_rows, n_kept)`, by positions `(n_rows,
    n_bytes)`. They are looked up for all of a group at once, in a table of every group's inputs at the positions of every code.
    """
    kept = _kept_within(pattern).to(packed.device)
    table = x.view(-1, pattern.of)[:, kept].view(_WORDS[pattern.kept])  # (n_groups, n_codes, 1)
    codes = unpacked_codes(packed, pattern.code_bits, len(table)).int()
    places = codes.add_(torch.arange(0, len(table) * len(kept), len(kept), dtype=torch.int32, device=packed.device))
    return table.view(-1).index_select(0, places.view(-1)).view(torch.float32).view(len(packed), -1)


@cache
def _patterns(pattern: NOfM) -> NDArray[np.int64]:
    """Return the patterns as rows of 0 and 1 `(C(m, n), m)`."""
    kept = list(combinations(range(pattern.of), pattern.kept))
    found = np.zeros((len(kept), pattern.of), dtype=np.int64)
    np.put_along_axis(found, np.array(kept), 1, axis=1)
    return found


def _patterns_of_codes(pattern: NOfM) -> NDArray[np.int64]:
    """Return the pattern of every code `(n_codes, m)`: those beyond the last pattern are the last."""
    return _patterns(pattern)[np.minimum(np.arange(1 << pattern.code_bits), len(_patterns(pattern)) - 1)]


@cache
def _kept_within(pattern: NOfM) -> Torch:
    """Return the positions kept in a code `(n_codes, n)`."""
    return torch.from_numpy(np.nonzero(_patterns_of_codes(pattern))[1].reshape(-1, pattern.kept))


@cache
def _ranks(pattern: Pattern) -> Torch:
    """Return the rank, from 1, of each weight among those kept in a code, `(n_codes, n_weights)` int32, far below 0 for one that is pruned.

    A code is an index of n of m, of which those beyond the last pattern are the last, or a byte of a mask.
    """
    kept = _BYTES
    if isinstance(pattern, NOfM):
        kept = torch.from_numpy(_patterns_of_codes(pattern))
    return torch.where(kept > 0, kept.cumsum(1), _PRUNED).int()
