"""From a table's units to nats, by what has been measured.

The sum of an additive table over a choice ranks choices well but is off by a factor: errors of units partly cancel or compound, and weight
errors are not in nats at all. The factor is the geometric mean of measured over summed divergence, and its spread is the prediction's error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice


@dataclass(frozen=True)
class Scale:
    """`factor` × summed table is the expected divergence; `relative_error` is one standard deviation of it, infinite when nothing supports it."""

    factor: float
    relative_error: float

    def nats(self, summed: float) -> float:
        """Expected divergence in nats per token of a choice whose table sums to `summed`."""
        return self.factor * summed

    def standard_error(self, summed: float) -> float:
        """One standard deviation of `nats(summed)`."""
        return self.nats(summed) * min(self.relative_error, 1.0)


def fit_scale(summed: Sequence[float], measured: Sequence[float]) -> Scale:
    """The scale of choices whose tables sum to `summed` and whose divergences are `measured`, both `(n,)`; 1 when none is above zero."""
    pairs = [(s, m) for s, m in zip(summed, measured, strict=True) if s > 0 and m > 0]
    if not pairs:
        return Scale(1.0, float("inf"))
    logs = np.log([m / s for s, m in pairs])
    spread = float(logs.std(ddof=1)) if len(logs) > 1 else float("inf")
    return Scale(float(np.exp(logs.mean())), spread)


def summed(table: NDArray[np.float64], choice: Choice) -> float:
    """Sum of the table `(n_units, n_formats)` over a choice `(n_units,)`."""
    return float(table[np.arange(len(choice)), choice].sum())


def completed(table: NDArray[np.float64], shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """The table `(n_units, n_formats)` with pairs it lacks (NaN) filled in where `shape`, a table in other units, has them.

    Within a unit the two are proportional up to noise, so a missing pair gets `shape` times the unit's median ratio.
    """
    both = ~np.isnan(table) & (shape > 0)
    ratio = np.array([np.median(t[b] / s[b]) if b.any() else 0.0 for t, s, b in zip(table, shape, both, strict=True)])
    return np.where(np.isnan(table), shape * ratio[:, None], table)
