"""Expected squares of the products of gradient and rounding errors, row by row, from a light pass before anything is quantized.

With g_t the gradient at the output of token t, x_t the layer's input, and the rounding error ΔW_r of row r of independent components in proportion to
the row's own mean square,

    E ⟨g, ΔW⟩_r² ∝ Σ_t g_tr² ‖x_t‖² · ‖W_r‖²

up to a factor of the tensor, without the cross terms of tokens. At the output head g_t is p − 1[label], whose square a single draw shows in the rows
of the labels alone; |p − 1[label]| has twice the square's expectation there, 2 p (1 − p), and less noise, and takes its place.

They decide by which rows formats are priced, see `row_sample`: where they are wrong, prices are noisier, and not biased.

Cost: one forward and one backward pass over the tokens, and no products of matrices beside those.
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Job, matrix_shape
from bitwright.objectives import Tap, Tapped, Use
from bitwright.predictors.sensitivity.gradients.losses import Batch, SampledLabels
from bitwright.predictors.sensitivity.gradients.sweep import batch_size, require_finite
from bitwright.predictors.sensitivity.subject import Subject

_ROWS_AT_ONCE = 1 << 12


def expected_squares(subject: Subject) -> dict[str, NDArray[np.float64]]:
    """Return, by tensor, a number for each row `(n_rows,)` that is proportional to the expected square of its product over the subject's tokens;
    look-ups of an embedding are not among them.

    Raises:
        ModelError: a gradient is not finite.
    """
    tap, tokens, step = _Squares(subject), subject.tokens, batch_size(subject.model)
    slope = SampledLabels().slope(subject)

    def run(batch: Batch) -> None:
        ids = torch.from_numpy(batch.ids).to(subject.model.device)
        with Tapped(subject.model, tap):
            subject.model.differentiate(lambda: subject.model.module(ids, use_cache=False).logits.float(), lambda found: slope(found, batch))

    jobs = [Job(partial(run, Batch(ids, i, i * step)), ids.size) for i, ids in enumerate(tokens.batches(step))]
    with subject.progress.stage("Finding the rows that matter", tokens.n_tokens) as advance:
        for _ in subject.model.each(jobs, advance):
            pass
    require_finite(tap.found.values())
    return tap.found


class _Squares(Tap):
    """Sum over the tokens of every use what the rows of its tensor are expected to have."""

    def __init__(self, subject: Subject) -> None:
        model = subject.model
        self.found = {tensor.name: np.zeros(matrix_shape(tensor)[0]) for unit in subject.space.units for tensor in unit.tensors}
        names = {piece.parameter for pieces in model.pieces.values() for piece in pieces}
        self._weights = {name: model.module.get_parameter(name).detach() for name in names}
        head = model.module.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._heads = set() if head is None else {name for name in names if model.module.get_parameter(name) is head.get_parameter("weight")}

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        """Add the rows of a linear layer when the gradient at its output `y` comes."""
        decided = [use for use in uses if use.tensor in self.found]
        if decided and y.requires_grad:
            powers = x.detach().float().flatten(0, -2).square().sum(dim=1)  # (n_tokens,)
            y.register_hook(lambda slopes: self._add(decided, powers, slopes))  # type: ignore[no-untyped-call]

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:  # noqa: ARG002
        """Let gradients begin at a look-up, and add nothing."""
        if y.is_leaf:
            y.requires_grad_(True)

    def _add(self, uses: list[Use], powers: Torch, slopes: Torch) -> None:
        for use in uses:
            matrix, is_head = use.piece.matrix(self._weights[use.piece.parameter]), use.piece.parameter in self._heads
            for start in range(0, len(use.order), _ROWS_AT_ONCE):
                order = torch.from_numpy(use.order[start : start + _ROWS_AT_ONCE]).to(slopes.device)
                of_rows = slopes.flatten(0, -2)[:, order].float()  # (n_tokens, n_rows)
                squares = of_rows.abs() if is_head else of_rows.square()
                found = (powers @ squares).double() * matrix[order].float().square().sum(dim=1).double()
                first = use.first_row + start
                self.found[use.tensor][first : first + len(order)] += found.cpu().numpy()
