"""Second moments of what every tensor is applied to, and tables of errors that are quadratic in the change of weights.

A layer that computes W x makes an error of E‖ΔW x‖² = tr(ΔW M ΔWᵀ) with M = E x xᵀ. An expert has a matrix of its own, over the tokens it sees, and
a look-up has none: its input is a one-hot vector, so M is diagonal and holds the tokens' frequencies. Expectations are over the tokens of the text,
also for an expert, so one that is rarely chosen costs little; a matrix that is used twice, as embedding and as head, is counted twice.

Memory: the matrices of as many units as fit into 2 GiB, one unit at the least. Where they do not all fit, there is one pass for each part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Floats, Model, matrix_shape
from bitwright.objectives import Tap, Tapped, Use
from bitwright.predictors.sensitivity.block_hooks import portions, read
from bitwright.predictors.sensitivity.caching import kept
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Of one tensor, per token of the text: `inputs` `(n_groups, n_columns, n_columns)` is Σ x xᵀ over the tokens that each group sees, a group being
    an expert or the whole tensor, with no group where the tensor is not multiplied with anything; `look_ups` `(n_rows,)` is how often each row is
    looked up.
    """

    inputs: Torch
    look_ups: NDArray[np.float64]


#: a change of weights `(n_rows, n_columns)` -> its cost where the tensor is multiplied, and where its rows are looked up
Cost = Callable[[Floats], tuple[float, float]]
#: the moments of a tensor -> the cost of any change of it
Judge = Callable[[Moments], Cost]


@dataclass(frozen=True, eq=False)
class OutputErrors:
    """Mean squared norms for each token of the text: `changed` `(n_units, n_formats, 2)` of the error that a format makes in an output, NaN where a
    pair is not offered, and `original` `(n_units, 2)` of the output itself. The last axis is how a unit is used: multiplied, and looked up.
    """

    changed: NDArray[np.float64]
    original: NDArray[np.float64]

    def absolute(self) -> NDArray[np.float64]:
        """The error `(n_units, n_formats)`, of both uses together."""
        total: NDArray[np.float64] = self.changed.sum(axis=2)
        return total

    def relative(self) -> NDArray[np.float64]:
        """The error over the power of the output `(n_units, n_formats)`, noise to signal, added over both uses; 0 for a use that there is not."""
        power = np.broadcast_to(self.original[:, None], self.changed.shape)
        ratios = np.divide(self.changed, power, out=np.where(np.isnan(self.changed), np.nan, 0.0), where=power > 0)
        total: NDArray[np.float64] = ratios.sum(axis=2)
        return total


def judged(subject: Subject, name: str, judge: Judge) -> OutputErrors:
    """What `judge` says of every offered format of every unit, and of the weights themselves. Kept in the subject's store as `name`."""
    units, model = subject.space.units, subject.model
    found = np.full((len(units), len(subject.space.formats) + 1, 2), np.nan)
    for portion in portions([sum(_size_bytes(model, tensor) for tensor in unit.tensors) for unit in units]):
        found[portion] = kept(subject, f"{name}/{portion[0]}", partial(_of_units, subject, portion, judge))
    return OutputErrors(found[:, :-1], found[:, -1])


def judged_weights(subject: Subject, name: str, judge: Judge) -> NDArray[np.float64]:
    """What `judge` says of the weights of every unit `(n_units, 2)`, multiplied and looked up. Kept in the subject's store as `name`."""
    units, found = subject.space.units, np.zeros((len(subject.space.units), 2))
    for portion in portions([sum(_size_bytes(subject.model, tensor) for tensor in unit.tensors) for unit in units]):
        found[portion] = kept(subject, f"{name}/{portion[0]}", partial(_of_weights, subject, portion, judge))
    return found


def row_powers(weights: Floats) -> NDArray[np.float64]:
    """Σ w² of each row `(n_rows,)`."""
    powers: NDArray[np.float64] = np.einsum("rc,rc->r", weights, weights).astype(np.float64)
    return powers


def _collected(subject: Subject, portion: list[int]) -> "_Collecting":
    """The moments of the tensors of some units, from one pass over the tokens."""
    collecting = _Collecting(subject.model, [tensor for u in portion for tensor in subject.space.units[u].tensors])
    with Tapped(subject.model, collecting):
        read(subject, "Collecting what every layer is given")
    return collecting


def _of_weights(subject: Subject, portion: list[int], judge: Judge) -> NDArray[np.float64]:
    """Costs `(len(portion), 2)` of the weights themselves."""
    collecting, rows = _collected(subject, portion), np.zeros((len(portion), 2))
    for row, u in zip(rows, portion, strict=True):
        for tensor in subject.space.units[u].tensors:
            row += judge(collecting.moments(tensor, subject.tokens.n_tokens))(subject.levels.source.read(tensor))
    return rows


def _of_units(subject: Subject, portion: list[int], judge: Judge) -> NDArray[np.float64]:
    """Costs `(len(portion), n_formats + 1, 2)` of every format, and of the weights themselves."""
    units = [subject.space.units[u] for u in portion]
    collecting = _collected(subject, portion)
    rows = np.full((len(units), len(subject.space.formats) + 1, 2), np.nan)
    for row, u, unit in zip(rows, portion, units, strict=True):
        offered = np.flatnonzero(subject.space.offered[u])
        row[[*offered, -1]] = 0
        for tensor in unit.tensors:
            cost = judge(collecting.moments(tensor, subject.tokens.n_tokens))
            original = subject.levels.source.read(tensor)
            row[-1] += cost(original)
            for f in offered:
                row[f] += cost(subject.levels.weights(tensor, subject.space.formats[f]) - original)
    return rows


class _Collecting(Tap):
    """Sums Σ x xᵀ of every group of some tensors, and counts look-ups of their rows."""

    def __init__(self, model: Model, tensors: list[Tensor]) -> None:
        self._model, self._tensors = model, {tensor.name: tensor for tensor in tensors}
        self._products: dict[str, Torch] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._last: tuple[Torch, Torch] | None = None

    def moments(self, tensor: Tensor, n_tokens: int) -> Moments:
        """Of one tensor; without groups or look-ups where nothing was seen."""
        n_rows, n_columns = matrix_shape(tensor)
        products = self._products.get(tensor.name, torch.zeros((0, n_columns, n_columns)))
        return Moments(products / n_tokens, self._counts.get(tensor.name, np.zeros(n_rows, dtype=np.int64)) / n_tokens)

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        for use in uses:
            if use.tensor in self._tensors:
                if use.tensor not in self._products:
                    shape = (len(self._model.pieces[use.tensor]), x.shape[-1], x.shape[-1])
                    self._products[use.tensor] = torch.zeros(shape, device=x.device)
                self._products[use.tensor][use.group] += self._product(x)

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:  # noqa: ARG002
        for use in uses:
            if use.tensor in self._tensors:
                n_rows, _ = matrix_shape(self._tensors[use.tensor])
                rows = use.first_row + np.argsort(use.order)[ids.cpu().numpy().reshape(-1)]  # torch row -> engine row
                self._counts[use.tensor] = self._counts.get(use.tensor, np.zeros(n_rows, dtype=np.int64)) + np.bincount(rows, minlength=n_rows)

    def _product(self, x: Torch) -> Torch:
        """Σ x xᵀ of one batch; several layers in a row may be given the same."""
        if self._last is None or self._last[0] is not x:
            rows = x.reshape(-1, x.shape[-1])
            self._last = (x, rows.T @ rows)
        return self._last[1]


def _size_bytes(model: Model, tensor: Tensor) -> int:
    return 4 * len(model.pieces[tensor.name]) * tensor.shape[-1] ** 2
