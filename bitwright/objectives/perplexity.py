"""Perplexity of the changed model on the held-out text: exp of the mean −log q(token) over every token but each sequence's first.

Unlike a divergence it asks what the text says, not what the original would have said: it can fall below the original's own.
"""

from dataclasses import dataclass
from math import exp

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.objectives.measurement import standard_error
from bitwright.objectives.objective import Estimate, TokenObjective, mean_over_tokens

_LARGEST_EXPONENT = 700.0  # a number even of the most broken choice


@dataclass(frozen=True)
class Perplexity(TokenObjective):
    """A sequence's value is its mean loss in nats per token; the sequences are equally long, so their mean is that over tokens."""

    name = "perplexity"
    unit = "perplexity"

    def of_batch(self, original: Torch, changed: Torch, ids: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: ARG002
        """See `TokenObjective.of_batch`."""
        labels = torch.from_numpy(ids[:, 1:]).to(changed.device)
        return mean_over_tokens(-changed[:, :-1].gather(-1, labels[..., None])[..., 0])

    def summarise(self, per_sequence: NDArray[np.float64]) -> Estimate:
        """exp of the mean loss, of 700 at most; by the delta method its standard error is that of the mean loss times the perplexity."""
        perplexity = exp(min(per_sequence.mean(), _LARGEST_EXPONENT))
        return Estimate(perplexity, perplexity * standard_error(per_sequence))
