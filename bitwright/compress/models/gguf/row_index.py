"""Index of the rows of a module's parameters by their contents.

A row is known by a 64-bit hash of its float32 values: the sum of its words, scrambled, each times an odd number, modulo 2^64. Equal rows have
equal hashes; whoever finds a row compares its values too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress.models.float_types import FLOAT_TYPES
from bitwright.compress.models.source import Floats
from bitwright.compress.models.tensor_layout import ParameterSlice

Hashes = NDArray[np.uint64]
_AT_ONCE = 1 << 17  # weights hashed at once: what a core keeps close
_ODD, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


@dataclass(frozen=True, eq=False)
class Owner:
    """Matrix `(n_rows, n_columns)` of a module: a parameter or one expert of it, or its transpose. `hashes` are those of its rows."""

    parameter: str
    expert: int
    transposed: bool
    shape: tuple[int, int]
    hashes: Hashes


@dataclass(frozen=True, eq=False)
class Places:
    """Rows with given hashes: row `i` is in the entries `first[i]:past[i]` of an index."""

    first: NDArray[np.int64]
    past: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of equal rows `(n_rows,)`."""
        return self.past - self.first


class RowIndex:
    """Rows of one length of many matrices. `owner` and `row` `(n_entries,)` say where each entry lies, in the order of the hashes."""

    def __init__(self, owners: list[Owner]) -> None:
        self.owners = owners
        lengths = [len(owner.hashes) for owner in owners]
        hashes = np.concatenate([owner.hashes for owner in owners]) if owners else np.zeros(0, dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self.owner = np.repeat(np.arange(len(owners)), lengths)[order]
        starts = np.cumsum([0, *lengths])[:-1]
        self.row = (np.arange(len(hashes)) - np.repeat(starts, lengths))[order]

    def find(self, hashes: Hashes) -> Places:
        """Look up rows by their hashes."""
        return Places(np.searchsorted(self._hashes, hashes, "left"), np.searchsorted(self._hashes, hashes, "right"))


class ParameterRows:
    """Indices of the rows of `parameters`, or of those of their transposes, made when a length of rows is first asked for.

    Weights are first rounded to the float type `stored`, as a file of that type has them.
    """

    def __init__(self, parameters: Mapping[str, Torch], *, transposed: bool, stored: str) -> None:
        self._parameters = parameters
        self._transposed, self.stored = transposed, stored
        self._indices: dict[int, RowIndex] = {}

    def of_length(self, n_columns: int) -> RowIndex:
        """Return the index of the rows of `n_columns`."""
        if n_columns not in self._indices:
            owners = [owner for name, weight in self._parameters.items() for owner in self._owners(name, weight, n_columns)]
            self._indices[n_columns] = RowIndex(owners)
        return self._indices[n_columns]

    def _owners(self, name: str, weight: Torch, n_columns: int) -> Iterator[Owner]:
        if weight.dim() not in (2, 3) or weight.shape[-2 if self._transposed else -1] != n_columns or 1 in weight.shape[1:]:
            return  # the kernel of a convolution over single channels is no stack of matrices
        for expert in range(len(weight)) if weight.dim() == 3 else (-1,):
            matrix = ParameterSlice(name, expert, range(0), transposed=self._transposed).matrix(weight.detach())
            yield Owner(name, expert, self._transposed, (matrix.shape[0], matrix.shape[1]), hashes_of_rows(matrix, self.stored))


def hashes_of_rows(matrix: Torch, stored: str = "F32") -> Hashes:
    """Return the hashes `(n_rows,)` of the rows of a matrix, rounded to the float type `stored`."""
    n_rows, n_columns = matrix.shape
    factors = np.random.default_rng(n_columns).integers(0, 2**63, -(-n_columns // 2), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    step = max(1, _AT_ONCE // max(1, n_columns))
    found = np.empty(n_rows, dtype=np.uint64)
    for start in range(0, n_rows, step):
        rows = matrix[start : start + step].to(FLOAT_TYPES[stored]).float().cpu()
        even = torch.nn.functional.pad(rows, (0, n_columns % 2)).contiguous().numpy()
        found[start : start + step] = _hashed(even, factors)
    return found


def _hashed(rows: Floats, factors: Hashes) -> Hashes:
    words = rows.view(np.uint64) * _ODD
    words ^= words >> _HALF  # the low bits of half floats are zeros
    found: Hashes = np.einsum("ij,j->i", words, factors)
    return found
