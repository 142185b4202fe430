"""Perplexity of the changed model on the held-out text: exp of the mean −log q(token) over every token but each sequence's first.

Unlike a divergence it compares with the text, not with the original model, so it can fall below the original's own perplexity.
"""

from dataclasses import dataclass
from math import exp

import numpy as np
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.objectives.measurement import Estimate, standard_error
from bitwright.objectives.objective import TokenObjective

_LARGEST_EXPONENT = 700.0  # keeps the perplexity of a broken model finite


@dataclass(frozen=True)
class Perplexity(TokenObjective):
    """Perplexity. A sequence's value is its mean loss in nats per token; sequences are equally long, so their mean is the mean over tokens."""

    name = "perplexity"
    unit = "perplexity"
    positions = slice(-1)  # the last token has no next token

    def token_values(self, original: Torch, changed: Torch, following: Torch) -> Torch:  # noqa: ARG002
        """Return the negative log-likelihood of each following token in nats."""
        return -changed.gather(-1, following[:, None])[:, 0]

    def summarise(self, per_sequence: NDArray[np.float64]) -> Estimate:
        """Return exp of the mean loss, capped at exp(700); its standard error, by the delta method, is that of the mean loss times the perplexity."""
        perplexity = exp(min(per_sequence.mean(), _LARGEST_EXPONENT))
        return Estimate(perplexity, perplexity * standard_error(per_sequence))
