"""Mean divergence over the worst few per cent of the held-out sequences.

A mean over all text hides that compression harms the long tail most (Hooker et al., 2020, "Characterising bias in compressed models", arXiv
2010.03058). The statistic is the conditional value at risk (Rockafellar and Uryasev, 2000), over ⌈n · percent / 100⌉ whole sequences.
"""

from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.objectives.measurement import Estimate
from bitwright.objectives.metrics.kullback_leibler import KullbackLeibler
from bitwright.objectives.objective import TokenObjective

_RESAMPLES = 1000
_SEED = 0


@dataclass(frozen=True)
class WorstSlice(TokenObjective):
    """Mean divergence of the worst `percent` of sequences, at least one.

    Its standard error is the standard deviation over 1,000 bootstrap resamples of the sequences (Efron, 1979), drawn with a fixed seed. With a
    handful of sequences in the slice it is rough, and too small rather than too large.
    """

    percent: float = 5
    unit = "nats/token"

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"a slice must be more than 0 and at most 100 per cent, not {self.percent}")

    @property
    def name(self) -> str:
        """Return e.g. `worst5%`."""
        return f"worst{self.percent:g}%"

    def token_values(self, original: Torch, changed: Torch, following: Torch) -> Torch:
        """Return the divergence KL(original ‖ changed) at every position."""
        return KullbackLeibler().token_values(original, changed, following)

    def summarise(self, per_sequence: NDArray[np.float64]) -> Estimate:
        """Return the mean of the worst slice and its bootstrap standard error; infinite with a single sequence."""
        n = len(per_sequence)
        drawn = np.random.default_rng(_SEED).integers(n, size=(_RESAMPLES, n))
        error = float(self._worst(per_sequence[drawn]).std(ddof=1)) if n > 1 else inf
        return Estimate(float(self._worst(per_sequence)), error)

    def _worst(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of the largest of `values` `(..., n)`: `(...)`."""
        n = values.shape[-1]
        first = n - ceil(n * self.percent / 100)
        worst: NDArray[np.float64] = np.partition(values, first, axis=-1)[..., first:].mean(axis=-1)
        return worst
