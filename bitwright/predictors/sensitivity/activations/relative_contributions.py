"""Relative contribution of each feed-forward channel to the outputs of its part: small contributions.

With w_ij the weight from channel j to output i and a_j the channel's activation at a token, the contribution of the weight is its share of what
enters that output, and the score of a channel is the mean over tokens, summed over the outputs:

    score_j = Σ_i E [ |w_ij a_j| / Σ_k |w_ik a_k| ]

so the scores of a part sum up to its number of outputs. With s_i = Σ_k |w_ik| |a_k| it is E [ |a_j| Σ_i |w_ij| / s_i ]: two products of matrices for
all tokens of a batch, and no array of tokens × outputs × channels.

Source: Hussien et al., "Small Contributions, Small Networks: Efficient Neural Network Pruning Based on Relative Importance" (arXiv 2410.16151), which
removes single weights of small contribution. Only its abstract and summaries were available: the sum over a channel is a choice made here.

Cost: one forward pass over the tokens, and twice the products of the down projections.
"""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.objectives import Tap, Tapped, Tokens, Use
from bitwright.predictors.sensitivity.block_hooks import run_text
from bitwright.predictors.sensitivity.channel_scoring import down_matrices
from bitwright.progress import Progress


def relative_contributions(model: Model, tokens: Tokens, *, seed: int, progress: Progress) -> dict[str, NDArray[np.float64]]:  # noqa: ARG001
    """Measure the contributions `(n_channels,)` of the channels of every dense feed-forward part, by the name of its down matrix."""
    tap = _Contributions(model, down_matrices(model))
    with Tapped(model, tap):
        run_text(model, tokens, "Measuring feed-forward channels", progress=progress)
    return {name: (summed / tokens.n_tokens).cpu().numpy() for name, summed in tap.sums.items()}


class _Contributions(Tap):
    """Sums over tokens of the contributions of the inputs of some matrices."""

    def __init__(self, model: Model, names: Collection[str]) -> None:
        self._model, self._names = model, names
        self.sums: dict[str, Torch] = {}

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        for use in uses:
            if use.tensor in self._names:
                weights = use.piece.cut(self._model.module.get_parameter(use.piece.parameter)).float().abs()  # (n_outputs, n_channels)
                given = x.reshape(-1, x.shape[-1]).float().abs()  # (n_tokens, n_channels)
                entering = given @ weights.T  # (n_tokens, n_outputs)
                of_a_share = torch.where(entering > 0, 1 / entering, 0.0) @ weights
                summed = (given * of_a_share).sum(dim=0, dtype=torch.float64)
                self.sums[use.tensor] = self.sums.get(use.tensor, 0) + summed

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Ignore look-ups: feed-forward parts have none."""
