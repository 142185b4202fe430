"""Perplexity of the changed model on the held-out text: exp of the mean −log q(token) over every token but each sequence's first.

Unlike a divergence it asks what the text says, not what the original would have said: it can fall below the original's own.
"""

from dataclasses import dataclass
from math import exp

import numpy as np
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.objectives.measurement import standard_error
from bitwright.objectives.objective import Estimate, TokenObjective

_LARGEST_EXPONENT = 700.0  # a number even of the most broken choice


@dataclass(frozen=True)
class Perplexity(TokenObjective):
    """A sequence's value is its mean loss in nats per token; the sequences are equally long, so their mean is that over tokens."""

    name = "perplexity"
    unit = "perplexity"
    positions = slice(-1)  # nothing follows the last

    def of_tokens(self, original: Torch, changed: Torch, following: Torch) -> Torch:  # noqa: ARG002
        """See `TokenObjective.of_tokens`."""
        return -changed.gather(-1, following[:, None])[:, 0]

    def summarise(self, per_sequence: NDArray[np.float64]) -> Estimate:
        """exp of the mean loss, of 700 at most; by the delta method its standard error is that of the mean loss times the perplexity."""
        perplexity = exp(min(per_sequence.mean(), _LARGEST_EXPONENT))
        return Estimate(perplexity, perplexity * standard_error(per_sequence))
