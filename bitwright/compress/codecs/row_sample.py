"""Samples of a model's rows, from which formats are priced without quantizing whole tensors.

Rows of a tensor are drawn without replacement, with equal chances or by their size, what they are expected to have of the sum. Sums over all rows are
estimated from the drawn ones by their weights, the reciprocals of their chances of being drawn (Horvitz & Thompson, Journal of the American
Statistical Association 47, 1952). The rows drawn are dealt into groups at random, so that sums have a standard error (random groups; Wolter,
Introduction to Variance Estimation, 2007, chapter 2), and squares of sums a second estimate: see `Products` in
`predictors/sensitivity/gradients/sweep.py`.

Rows are quantized independently of each other by every codec, so a drawn row has the bytes that it has in the whole tensor.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.packed_cache import PackedTensors, matrix_shape
from bitwright.compress.models.source import Bytes, Floats, Source
from bitwright.spaces import Tensor

Indices = NDArray[np.int64]
_EQUAL = 0.25  # share of the chances of being drawn that all rows have alike, which bounds their weights
_ROUNDING = 1e-9
_KEPT = 4  # tensors whose drawn rows are kept in memory: those of a unit, which is quantized in one format after another


@dataclass(frozen=True, eq=False)
class DrawnRows:
    """Rows of one tensor, ascending `(n,)`, with the `weights` and `groups` of each, both `(n,)`."""

    rows: Indices
    weights: NDArray[np.float64]
    groups: Indices


class RowSample:
    """Rows of a model's tensors to price formats by, and `levels`, these rows packed. `n_groups` is the number of groups of the rows of each tensor.

    Tensors that are not in `drawn` have all of their rows, in one group. Packed rows are stored in a folder of this sample, within that of `levels`.
    """

    def __init__(self, levels: PackedTensors, drawn: Mapping[str, DrawnRows], n_groups: int) -> None:
        self.n_groups, self.drawn, self.levels = n_groups, drawn, levels
        if drawn:
            source = SampledSource(levels.source, {name: of_tensor.rows for name, of_tensor in drawn.items()})
            self.levels = replace(levels, folder=levels.folder / f"rows-{self.key}", source=source)

    @property
    def is_whole(self) -> bool:
        """True if every tensor has all of its rows, so that nothing is estimated."""
        return not self.drawn

    def packed(self, tensor: Tensor) -> Tensor:
        """Return the tensor as `levels` have it, with the drawn rows alone."""
        return _sampled(tensor, len(self.drawn[tensor.name].rows)) if tensor.name in self.drawn else tensor

    def row_weights(self, tensor: Tensor) -> NDArray[np.float64]:
        """Return the weights of the drawn rows `(n,)`."""
        return self.drawn[tensor.name].weights if tensor.name in self.drawn else np.ones(matrix_shape(tensor)[0])

    def within(self, tensor: Tensor, start: int, stop: int) -> tuple[Indices, Indices, NDArray[np.float64]]:
        """Return the drawn rows among `start` to `stop`, ascending: their numbers `(n,)`, their places in `levels` `(n,)`, and the factors
        `(n, 1 + n_groups)` of each in the sum over all rows, its weight, and in that of its group, the root of it.
        """
        if tensor.name not in self.drawn:
            rows = np.arange(start, stop)
            return rows, rows, np.ones((len(rows), 2))
        drawn = self.drawn[tensor.name]
        some = slice(*np.searchsorted(drawn.rows, [start, stop]))
        weights, places = drawn.weights[some, None], np.arange(some.start, some.stop)
        of_groups = np.sqrt(weights) * (drawn.groups[some, None] == np.arange(self.n_groups))
        return drawn.rows[some], places, np.concatenate([weights, of_groups], axis=1)

    @cached_property
    def key(self) -> str:
        """Return a digest of the rows and groups, empty where every tensor has all of its rows."""
        found = hashlib.sha256(str(self.n_groups).encode())
        for name in sorted(self.drawn):
            drawn = self.drawn[name]
            found.update(name.encode() + drawn.rows.tobytes() + drawn.weights.tobytes() + drawn.groups.tobytes())
        return found.hexdigest()[:12] if self.drawn else ""


def all_rows(levels: PackedTensors) -> RowSample:
    """Return the sample of every row, which has the levels themselves."""
    return RowSample(levels, {}, 1)


def drawn_rows(
    tensor: Tensor, n_rows: int, *, n_groups: int, seed: int, certain: Indices | None = None, sizes: NDArray[np.float64] | None = None
) -> DrawnRows:
    """Draw `n_rows` rows of a tensor, as many of each matrix of a stack, or all where it has no more, beside the rows that are `certain` to be taken:
    with chances in proportion to `sizes` `(n_rows of the tensor,)`, or with equal ones. A share of the chances is equal in any case.

    A tensor's rows depend on its name, the sizes and the seed alone.
    """
    rng = np.random.default_rng([seed, *hashlib.sha256(tensor.name.encode()).digest()[:8]])
    n_matrices = tensor.n_matrices
    per_matrix = matrix_shape(tensor)[0] // n_matrices
    taken = np.unique(certain) if certain is not None else np.zeros(0, dtype=np.int64)
    drawn, chances = [taken], [np.ones(len(taken))]
    for m in range(n_matrices):
        left = np.setdiff1d(np.arange(m * per_matrix, (m + 1) * per_matrix), taken)
        n_drawn = min(max(1, -(-n_rows // n_matrices)), len(left))
        of_rows = chances_of_rows(np.ones(len(left)) if sizes is None else sizes[left], n_drawn)
        picked = _picked(of_rows, rng)
        drawn.append(left[picked])
        chances.append(of_rows[picked])
    rows, weights = np.concatenate(drawn), 1 / np.concatenate(chances)
    groups = rng.permutation(len(rows)) % n_groups
    order = np.argsort(rows)
    return DrawnRows(rows[order], weights[order], groups[order])


def chances_of_rows(sizes: NDArray[np.float64], n_drawn: int) -> NDArray[np.float64]:
    """Return the chance of each row `(n,)` when `n_drawn` are drawn: of what is not shared equally, in proportion to its size, and at most one."""
    shares = np.full(len(sizes), 1 / max(len(sizes), 1))
    if sizes.sum() > 0:
        shares = _EQUAL * shares + (1 - _EQUAL) * sizes / sizes.sum()
    chances, open_to = np.ones(len(sizes)), np.arange(len(sizes))
    while len(open_to) and n_drawn < len(sizes):
        found = (n_drawn - (len(sizes) - len(open_to))) * shares[open_to] / shares[open_to].sum()
        chances[open_to] = found
        certain = found >= 1 - _ROUNDING
        chances[open_to[certain]] = 1
        if not certain.any():
            break
        open_to = open_to[~certain]
    return chances


def _picked(chances: NDArray[np.float64], rng: np.random.Generator) -> Indices:
    """Pick rows with these chances `(n,)`, whose sum is a whole number of rows, and as many as that: every step of one along their sum in random
    order (Madow, Annals of Mathematical Statistics 20, 1949).
    """
    certain, others = np.flatnonzero(chances == 1), rng.permutation(np.flatnonzero(chances < 1))
    n_drawn = round(chances[others].sum())
    steps = rng.random() + np.arange(n_drawn)
    return np.concatenate([certain, others[np.searchsorted(np.cumsum(chances[others]), steps, side="right").clip(max=len(others) - 1)]])


class SampledSource(Source):
    """Source `whole` with some `rows` of its tensors alone, by name of the tensor; each matrix of a stack has as many."""

    def __init__(self, whole: Source, rows: Mapping[str, Indices]) -> None:
        self.name, self.architecture, self.metadata = whole.name, whole.architecture, whole.metadata
        self.fingerprint, self.settings = whole.fingerprint, whole.settings
        self._whole, self._rows, self._kept = whole, rows, dict[str, Floats]()
        self._tensors = {tensor.name: tensor for tensor in whole.tensors}
        self.tensors = tuple(_sampled(tensor, len(rows[tensor.name])) if tensor.name in rows else tensor for tensor in whole.tensors)

    def read(self, tensor: Tensor) -> Floats:
        """Read the rows as float32 `(n_rows, n_columns)`; those of the tensors read last are kept."""
        if tensor.name not in self._kept:
            weights = self._read(self._tensors[tensor.name])
            while len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[tensor.name] = weights
        return self._kept[tensor.name]

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the stored bytes `(n_bytes,)` of the rows."""
        whole = self._tensors[tensor.name]
        packed = self._whole.stored(whole).reshape(matrix_shape(whole)[0], -1)
        return packed[self._rows[whole.name]].reshape(-1) if whole.name in self._rows else packed.reshape(-1)

    def _read(self, tensor: Tensor) -> Floats:
        rows = self._rows.get(tensor.name)
        if rows is None:
            return self._whole.read(tensor)
        if len(tensor.shape) < 3:
            return self._whole.chosen_rows(tensor, rows)
        n_matrices, per_matrix, _ = tensor.shape  # one at a time: a stack may be as large as all other tensors together
        parts = enumerate(rows.reshape(n_matrices, -1))
        return np.concatenate([self._whole.part(tensor, expert)[of_expert - expert * per_matrix] for expert, of_expert in parts])


def _sampled(tensor: Tensor, n_rows: int) -> Tensor:
    """Return the tensor with `n_rows` rows, over all matrices of a stack."""
    shape = (tensor.shape[0], n_rows // tensor.shape[0]) if len(tensor.shape) == 3 else (n_rows,)
    return replace(tensor, shape=(*shape, tensor.shape[-1]))
