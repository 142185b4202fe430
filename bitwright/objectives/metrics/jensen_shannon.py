"""Jensen-Shannon divergence of the next-token distributions: symmetric, and at most ln 2.

JSD = ½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ (p + q), in nats. Source: Lin, 1991, Divergence measures based on the Shannon entropy.
AMQ (Lee et al., EMNLP 2025, arXiv 2509.12019) clamps m to at least 1e-7.
"""

from dataclasses import dataclass
from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.objectives.metrics.kullback_leibler import divergence_of
from bitwright.objectives.objective import TokenObjective

_FLOOR = 1e-7
_CEILING = 1.0


@dataclass(frozen=True)
class JensenShannon(TokenObjective):
    """Exact Jensen-Shannon divergence, in [0, ln 2]."""

    name = "jsd"
    unit = "nats/token"

    def token_values(self, original: Torch, changed: Torch, following: Torch) -> Torch:  # noqa: ARG002
        """Return the Jensen-Shannon divergence of each token in nats."""
        middle = torch.logaddexp(original, changed) - log(2)
        return (divergence_of(original, middle) + divergence_of(changed, middle)) / 2


@dataclass(frozen=True)
class ClampedJensenShannon(TokenObjective):
    """Jensen-Shannon divergence as AMQ computes it: the mixture m is clamped to at least 1e-7, and values above 1 or undefined become 1.

    The clamp makes the terms of the tail negative: for two equal models over a large vocabulary the value is slightly below zero. AMQ applies the
    ceiling to the mean, here it is applied to every sequence; it only affects undefined values, since the divergence is at most ln 2.
    """

    name = "amq-jsd"
    unit = "nats/token"

    def token_values(self, original: Torch, changed: Torch, following: Torch) -> Torch:  # noqa: ARG002
        """Return the Jensen-Shannon divergence of each token in nats, with the mixture clamped."""
        middle = ((original.exp() + changed.exp()) / 2).clamp(min=_FLOOR).log()
        return (divergence_of(original, middle) + divergence_of(changed, middle)) / 2

    def by_sequence(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of each sequence, capped at the ceiling."""
        return np.minimum(np.nan_to_num(super().by_sequence(values), nan=_CEILING), _CEILING)
