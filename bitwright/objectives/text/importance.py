"""Importance matrix: the mean squared activation of every input channel of every weight matrix.

Source: llama.cpp's `imatrix` tool. The quantizers of libggml weight the error of each weight by it.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model, extremes
from bitwright.errors import ModelError
from bitwright.objectives.text.forward_pass import run_forward
from bitwright.objectives.text.taps import Tap, Use
from bitwright.objectives.text.tokens import Tokens
from bitwright.progress import Progress


class InputSquares(Tap):
    """Sums of squares of each tensor's inputs `(n_groups, n_columns)`, and the number of tokens of each group."""

    def __init__(self, model: Model) -> None:
        bound = [tensor for tensor in model.tensors if tensor.name in model.pieces]
        self.sums = {tensor.name: np.zeros((tensor.n_matrices, tensor.shape[-1])) for tensor in bound}
        self.counts = {tensor.name: np.zeros(tensor.n_matrices) for tensor in bound}

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        """Add the squares of the inputs `x` `(..., n_columns)`."""
        rows = x.detach().reshape(-1, x.shape[-1]).float()
        squares = rows.square().sum(dim=0).double().cpu().numpy()
        for use in (use for use in uses if use.is_first):
            self.sums[use.tensor][use.group] += squares
            self.counts[use.tensor][use.group] += len(rows)

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Ignore a look-up, which has no input channels."""

    def means(self) -> dict[str, NDArray[np.float32]]:
        """Return the mean squares by tensor name; a tensor that no token reached is left out, and an expert that none reached gets the mean of the
        others.
        """
        return {name: _means(self.sums[name], counts) for name, counts in self.counts.items() if counts.any()}


def collect_importance(model: Model, tokens: Tokens, *, progress: Progress) -> dict[str, NDArray[np.float32]]:
    """Return the mean squared activations `(n_groups, n_columns)` by tensor name; a group is an expert, or the whole tensor.

    A tensor that no token reached is left out; an expert that no token reached gets the mean of the others.

    Raises:
        ModelError: the inputs of a tensor are not finite; the message names it, and the tensors with weights that are not finite.
    """
    squares = InputSquares(model)
    with progress.stage("Collecting the importance matrix", tokens.n_tokens) as advance:
        run_forward(model, tokens, advance, tap=squares)
    found = squares.means()
    _require_finite(model, found)
    return found


def _require_finite(model: Model, importance: dict[str, NDArray[np.float32]]) -> None:
    unsound = next((name for name, means in importance.items() if not np.isfinite(means).all()), "")
    if unsound:
        broken = [name for name, value in extremes(model).items() if not np.isfinite(value)]
        why = f"weights of {broken[0]} are" if broken else f"what goes into {unsound} is"
        raise ModelError(f"A model must give finite numbers on the calibration text; {why} infinite or undefined: repair it, or use another text.")


def _means(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float32]:
    means = sums / np.maximum(counts, 1)[:, None]
    means[counts == 0] = means[counts > 0].mean(axis=0)
    return means.astype(np.float32)
