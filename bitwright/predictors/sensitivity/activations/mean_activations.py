"""Mean absolute activation of each feed-forward channel on a text: Mini-GPTs.

    score_c = E |a_c|        a_c the input of the down projection, over the tokens of the text

Source: Valicenti et al., "Mini-GPTs: Efficient Large Language Models through Contextual Pruning" (arXiv 2312.12682): neurons go whose L1 norm on the
text of a domain, divided by its number of tokens, is below a threshold. Of a gated part the neuron's output is what the down projection is given.

Cost: one forward pass over the tokens.
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


def mean_activations(model: Model, tokens: Tokens, *, seed: int, progress: Progress) -> dict[str, NDArray[np.float64]]:  # noqa: ARG001
    """Measure E |a_c| `(n_channels,)` of every dense feed-forward part, by the name of its down matrix."""
    tap = _Magnitudes(down_matrices(model))
    with Tapped(model, tap):
        run_text(model, tokens, "Measuring feed-forward channels", progress=progress)
    return {name: (summed / tokens.n_tokens).cpu().numpy() for name, summed in tap.sums.items()}


class _Magnitudes(Tap):
    """Sums over tokens of the absolute inputs of some matrices."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self.sums: dict[str, Torch] = {}

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        for use in uses:
            if use.tensor in self._names and use.is_first:
                summed = x.reshape(-1, x.shape[-1]).abs().sum(dim=0, dtype=torch.float64)
                self.sums[use.tensor] = self.sums.get(use.tensor, 0) + summed

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Ignore look-ups: feed-forward parts have none."""
