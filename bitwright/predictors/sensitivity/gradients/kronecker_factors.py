"""Loss of taking a feed-forward channel away, by Kronecker-factored curvature (K-FAC).

With a the input of the down projection at a token, g the gradient of the loss at its output, and the Hessian of the layer approximated by the product
of the factors A = E a aᵀ and G = E g gᵀ (Martens & Grosse, 2015), the second-order loss of setting the channel's column w_j to zero is

    ½ w_jᵀ (A_jj G) w_j = ½ E a_j² · E (w_jᵀ g)²        in nats per token

The last form needs no G in memory. Labels are drawn from the model's own predictions, so that the Hessian is the Fisher information, that of the
divergence from the original (`gradient.py`); the factors take a and g for independent.

Source: Ebrahimi & Klabjan, "Neuron-based Pruning of Deep Neural Networks with Better Generalization using Kronecker Factored Curvature Approximation"
(arXiv 2111.08577), of which the abstract was available: it prunes neurons while it trains, led by the spectral radius of that Hessian to flat
solutions. Here the network is trained, nothing holds the radius, and the loss alone says which neurons go, as Optimal Brain Damage would.

Cost: one forward and one backward pass over the tokens.
"""

from collections.abc import Collection
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Job, Model
from bitwright.objectives import Tap, Tapped, Tokens, Use
from bitwright.predictors.sensitivity.channel_scoring import down_matrices
from bitwright.predictors.sensitivity.gradients.losses import Batch, sampled_slope
from bitwright.predictors.sensitivity.gradients.sweep import SEQUENCES_AT_ONCE, require_finite
from bitwright.progress import Progress


def kronecker_losses(model: Model, tokens: Tokens, *, seed: int, progress: Progress) -> dict[str, NDArray[np.float64]]:
    """Measure the loss of taking each channel away `(n_channels,)`, in nats per token, in every dense feed-forward part, by the name of its down
    matrix.

    Raises:
        ModelError: a gradient is not finite.
    """
    tap, slope = _Factors(model, down_matrices(model)), sampled_slope(seed)
    batches = [Batch(ids, i, i * SEQUENCES_AT_ONCE) for i, ids in enumerate(tokens.batches(SEQUENCES_AT_ONCE))]

    def run(batch: Batch) -> None:
        with Tapped(model, tap):
            model.differentiate(partial(_logits, model, batch), lambda found: slope(found, batch))

    with progress.stage("Measuring feed-forward channels by gradient", tokens.n_tokens) as advance:
        for _ in model.each([Job(partial(run, batch), batch.ids.size) for batch in batches], advance):
            pass
    losses = {name: (tap.inputs[name] * tap.outputs[name] / (2 * tokens.n_tokens**2)).cpu().numpy() for name in tap.outputs}
    require_finite(losses.values())
    return losses


def _logits(model: Model, batch: Batch) -> Torch:
    found: Torch = model.module(torch.from_numpy(batch.ids).to(model.device), use_cache=False).logits.float()
    return found


class _Factors(Tap):
    """Sums over tokens of a_j² and (w_jᵀ g)² of the columns of some matrices."""

    def __init__(self, model: Model, names: Collection[str]) -> None:
        self._model, self._names = model, names
        self.inputs: dict[str, Torch] = {}
        self.outputs: dict[str, Torch] = {}

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        for use in uses:
            if use.tensor in self._names:
                self.inputs[use.tensor] = self.inputs.get(use.tensor, 0) + _squares(x.detach())
                y.register_hook(partial(self._add, use))  # type: ignore[no-untyped-call]

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:  # noqa: ARG002
        """Require gradients from the look-up on, since no weight does."""
        if y.is_leaf:
            y.requires_grad_(True)

    @torch.no_grad()
    def _add(self, use: Use, slopes: Torch) -> None:
        weights = use.piece.cut(self._model.module.get_parameter(use.piece.parameter)).float()  # (n_rows, n_channels)
        order = torch.from_numpy(use.order).to(slopes.device)
        self.outputs[use.tensor] = self.outputs.get(use.tensor, 0) + _squares(slopes[..., order].float() @ weights)


def _squares(values: Torch) -> Torch:
    """Return the sums of squares of columns."""
    return values.reshape(-1, values.shape[-1]).double().square().sum(dim=0)
