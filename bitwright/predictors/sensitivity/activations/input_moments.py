"""Second moments of every tensor's inputs, and tables of errors that are quadratic in the weight change.

A layer W x has the output error E‖ΔW x‖² = tr(ΔW M ΔWᵀ) with M = E x xᵀ. Each expert has its own M, over the tokens routed to it. The input of a
look-up is a one-hot vector, so M is diagonal and holds the token frequencies. Expectations are per token of the text, also for an expert, so a rarely
selected expert costs little; a matrix used both as embedding and as output head is counted twice.

Memory: the matrices of as many units as fit into 2 GiB, at least one unit. If they do not all fit, there is one forward pass for each portion.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Floats, matrix_shape
from bitwright.objectives import Tap, Tapped, Use
from bitwright.predictors.sensitivity.block_hooks import portions, run_subject
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of one tensor's inputs per token of the text: `inputs` `(n_groups, n_columns, n_columns)` is Σ x xᵀ over the tokens of each
    group, an expert or the whole tensor, without groups if the tensor is never multiplied; `look_ups` `(n_rows,)` is the frequency of each row in
    look-ups.
    """

    inputs: Torch
    look_ups: NDArray[np.float64]


#: weight change `(n_rows, n_columns)` -> its cost as a multiplied matrix, and as a looked-up table
Cost = Callable[[Floats], tuple[float, float]]
#: moments of a tensor -> cost function of its weight changes
CostFromMoments = Callable[[Moments], Cost]


@dataclass(frozen=True, eq=False)
class OutputErrors:
    """Mean squared norms per token of the text: `changed` `(n_units, n_formats, 2)` of the output error of a format, NaN where a pair is not offered,
    and `original` `(n_units, 2)` of the output itself. The last axis is the use of a unit: multiplied, and looked up.
    """

    changed: NDArray[np.float64]
    original: NDArray[np.float64]

    def absolute(self) -> NDArray[np.float64]:
        """Return the error `(n_units, n_formats)`, the sum over both uses."""
        total: NDArray[np.float64] = self.changed.sum(axis=2)
        return total

    def relative(self) -> NDArray[np.float64]:
        """Return the error over the power of the output `(n_units, n_formats)`, the noise-to-signal ratio, summed over uses; 0 for an absent use."""
        power = np.broadcast_to(self.original[:, None], self.changed.shape)
        ratios = np.divide(self.changed, power, out=np.where(np.isnan(self.changed), np.nan, 0.0), where=power > 0)
        total: NDArray[np.float64] = ratios.sum(axis=2)
        return total


def quadratic_errors(subject: Subject, name: str, cost_from: CostFromMoments) -> OutputErrors:
    """Compute the cost of every offered format of every unit, and of the weights themselves; cached in the subject's store as `name`."""
    units = subject.space.units
    found = np.full((len(units), len(subject.space.formats) + 1, 2), np.nan)
    for portion in portions([sum(_size_bytes(tensor) for tensor in unit.tensors) for unit in units]):
        found[portion] = cached(subject, f"{name}/{portion[0]}", partial(_of_units, subject, portion, cost_from))
    return OutputErrors(found[:, :-1], found[:, -1])


def quadratic_weights(subject: Subject, name: str, cost_from: CostFromMoments) -> NDArray[np.float64]:
    """Compute the cost of the weights of every unit `(n_units, 2)`, multiplied and looked up; cached in the subject's store as `name`."""
    units, found = subject.space.units, np.zeros((len(subject.space.units), 2))
    for portion in portions([sum(_size_bytes(tensor) for tensor in unit.tensors) for unit in units]):
        found[portion] = cached(subject, f"{name}/{portion[0]}", partial(_of_weights, subject, portion, cost_from))
    return found


def row_powers(weights: Floats) -> NDArray[np.float64]:
    """Return Σ w² of each row `(n_rows,)`."""
    powers: NDArray[np.float64] = np.einsum("rc,rc->r", weights, weights).astype(np.float64)
    return powers


def _collected(subject: Subject, portion: list[int]) -> "_Collecting":
    """Return the moments of the tensors of some units, from one pass over the tokens."""
    collecting = _Collecting([tensor for u in portion for tensor in subject.space.units[u].tensors])
    with Tapped(subject.model, collecting):
        run_subject(subject, "Collecting what every layer is given")
    return collecting


def _of_weights(subject: Subject, portion: list[int], cost_from: CostFromMoments) -> NDArray[np.float64]:
    """Costs `(len(portion), 2)` of the weights themselves."""
    collecting, rows = _collected(subject, portion), np.zeros((len(portion), 2))
    for row, u in zip(rows, portion, strict=True):
        for tensor in subject.space.units[u].tensors:
            row += cost_from(collecting.moments(tensor, subject.tokens.n_tokens))(subject.levels.source.read(tensor))
    return rows


def _of_units(subject: Subject, portion: list[int], cost_from: CostFromMoments) -> NDArray[np.float64]:
    """Costs `(len(portion), n_formats + 1, 2)` of every format, and of the weights themselves."""
    units = [subject.space.units[u] for u in portion]
    collecting = _collected(subject, portion)
    rows = np.full((len(units), len(subject.space.formats) + 1, 2), np.nan)
    for row, u, unit in zip(rows, portion, units, strict=True):
        offered = np.flatnonzero(subject.space.offered[u])
        row[[*offered, -1]] = 0
        for tensor in unit.tensors:
            cost = cost_from(collecting.moments(tensor, subject.tokens.n_tokens))
            original = subject.levels.source.read(tensor)
            row[-1] += cost(original)
            for f in offered:
                row[f] += cost(subject.levels.weights(tensor, subject.space.formats[f]) - original)
    return rows


class _Collecting(Tap):
    """Sum Σ x xᵀ for every group of some tensors, and count the look-ups of their rows."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._products: dict[str, Torch] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._last: tuple[Torch, Torch] | None = None

    def moments(self, tensor: Tensor, n_tokens: int) -> Moments:
        """Return the moments of one tensor; without groups or look-ups if it was not used."""
        n_rows, n_columns = matrix_shape(tensor)
        products = self._products.get(tensor.name, torch.zeros((0, n_columns, n_columns)))
        return Moments(products / n_tokens, self._counts.get(tensor.name, np.zeros(n_rows, dtype=np.int64)) / n_tokens)

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        for use in uses:
            if use.tensor in self._tensors and use.is_first:
                if use.tensor not in self._products:
                    shape = (self._tensors[use.tensor].n_matrices, x.shape[-1], x.shape[-1])
                    self._products[use.tensor] = torch.zeros(shape, device=x.device)
                self._products[use.tensor][use.group] += self._product(x)

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:  # noqa: ARG002
        for use in uses:
            if use.tensor in self._tensors:
                n_rows, _ = matrix_shape(self._tensors[use.tensor])
                rows = use.first_row + np.argsort(use.order)[ids.cpu().numpy().reshape(-1)]  # torch row -> engine row
                self._counts[use.tensor] = self._counts.get(use.tensor, np.zeros(n_rows, dtype=np.int64)) + np.bincount(rows, minlength=n_rows)

    def _product(self, x: Torch) -> Torch:
        """Return Σ x xᵀ of one batch, computed once for consecutive layers with the same input."""
        if self._last is None or self._last[0] is not x:
            rows = x.reshape(-1, x.shape[-1])
            self._last = (x, rows.T @ rows)
        return self._last[1]


def _size_bytes(tensor: Tensor) -> int:
    return 4 * tensor.n_matrices * tensor.shape[-1] ** 2
