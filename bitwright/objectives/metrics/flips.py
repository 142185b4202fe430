"""Flips: share of positions at which the changed model's most likely next token differs from the original's.

Source: Dutta et al., NeurIPS 2024, "Accuracy is not all you need" (flips of answers); here flips of tokens, so that no task is needed.
"""

from dataclasses import dataclass

from torch import Tensor as Torch

from bitwright.objectives.objective import TokenObjective


@dataclass(frozen=True)
class Flips(TokenObjective):
    """Share of flipped tokens. A tie for the original's most likely token, which rounding to float16 can cause, is no flip."""

    name = "flips"
    unit = "share of tokens"

    def token_values(self, original: Torch, changed: Torch, following: Torch) -> Torch:  # noqa: ARG002
        """Return 1 for each token where the changed model's top token is not the original's, ties aside."""
        chosen = original.gather(-1, changed.argmax(dim=-1, keepdim=True))[..., 0]
        return chosen < original.amax(dim=-1)
