"""Scale from a table's units to nats per token, fitted to measured choices.

The sum of an additive table over a choice ranks choices well but is off by a factor: errors of units partly cancel or compound, and weight errors are
not in nats at all. The factor is the geometric mean of measured over summed divergence; the standard deviation of its logarithm is the relative
error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice


@dataclass(frozen=True)
class Scale:
    """`factor` × table sum is the expected divergence; `relative_error` is its relative standard deviation, infinite below two measurements."""

    factor: float
    relative_error: float

    def nats(self, summed: float) -> float:
        """Return the expected divergence in nats per token of a choice with the table sum `summed`."""
        return self.factor * summed

    def standard_error(self, summed: float) -> float:
        """Return the standard deviation of `nats(summed)`, at most `nats(summed)` itself."""
        return self.nats(summed) * min(self.relative_error, 1.0)


def fit_scale(summed: Sequence[float], measured: Sequence[float]) -> Scale:
    """Fit the scale to choices with table sums `summed` and divergences `measured`, both `(n,)`; the factor is 1 if no pair is above zero."""
    pairs = [(s, m) for s, m in zip(summed, measured, strict=True) if s > 0 and m > 0]
    if not pairs:
        return Scale(1.0, float("inf"))
    logs = np.log([m / s for s, m in pairs])
    spread = float(logs.std(ddof=1)) if len(logs) > 1 else float("inf")
    return Scale(float(np.exp(logs.mean())), spread)


def summed(table: NDArray[np.float64], choice: Choice) -> float:
    """Return the sum of the table `(n_units, n_formats)` over a choice `(n_units,)`."""
    return float(table[np.arange(len(choice)), choice].sum())


def completed(table: NDArray[np.float64], shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill the missing pairs (NaN) of a table `(n_units, n_formats)` from `shape`, a table in other units.

    Within a unit the two are proportional up to noise, so a missing pair becomes `shape` times the unit's median ratio.
    """
    both = ~np.isnan(table) & (shape > 0)
    ratio = np.array([np.median(t[b] / s[b]) if b.any() else 0.0 for t, s, b in zip(table, shape, both, strict=True)])
    return np.where(np.isnan(table), shape * ratio[:, None], table)
