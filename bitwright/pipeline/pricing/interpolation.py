"""Predict the divergence of unmeasured choices from the sensitivity table, corrected by the measured choices of the run.

The table's sum is off by a factor that drifts along the front, so the log factor is interpolated between the measured choices on the front (uniform
allocations have another factor and are left out). The standard error of a prediction combines the leave-one-out error of that interpolation with the
error of the measurements.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import Measurement
from bitwright.pipeline.run import Run
from bitwright.search import nondominated

_FEWEST = 3


@dataclass(frozen=True)
class PredictedDivergence:
    """Predicted divergence in nats per token, with its standard error."""

    nats_per_token: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class FrontInterpolator:
    """Interpolator of the table's log factor: knots `(n,)` of log sums, ascending, the log factor at each, and the relative error."""

    log_sums: NDArray[np.float64]
    log_factors: NDArray[np.float64]
    relative_error: float

    def __call__(self, summed: float) -> PredictedDivergence:
        """Predict the divergence of a choice whose table entries sum to `summed`."""
        if summed <= 0:
            return PredictedDivergence(0.0, 0.0)
        nats = summed * float(np.exp(np.interp(np.log(summed), self.log_sums, self.log_factors)))
        return PredictedDivergence(nats, nats * min(self.relative_error, 1.0))


def fit_interpolator(run: Run) -> FrontInterpolator:
    """Fit the interpolator to a run's measurements; with fewer than three on the front, use the run's single factor."""
    front = [(run.summed(np.array(m.choice)), m) for m in _front(run)]
    known = sorted(((summed, m) for summed, m in front if summed > 0 and m.nats_per_token > 0), key=lambda pair: pair[0])
    if len(known) < _FEWEST:
        return FrontInterpolator(np.zeros(1), np.full(1, np.log(run.scale.factor)), run.scale.relative_error)
    sums, nats = np.log([summed for summed, _ in known]), np.log([m.nats_per_token for _, m in known])
    noise = float(np.median([m.standard_error / m.nats_per_token for _, m in known]))
    missed = [np.interp(sums[i], np.delete(sums, i), np.delete(nats - sums, i)) - (nats - sums)[i] for i in range(1, len(sums) - 1)]
    return FrontInterpolator(sums, nats - sums, float(np.hypot(np.sqrt(np.mean(np.square(missed))), noise)))


def _front(run: Run) -> list[Measurement]:
    """Return the Pareto-optimal measured choices in size and divergence."""
    measured = list(run.measurements.values())
    if not measured:
        return []
    sizes = run.space.total_bits(np.array([m.choice for m in measured]))
    nats = np.array([m.nats_per_token for m in measured])
    return [measured[row] for row in np.flatnonzero(nondominated(np.stack([sizes.astype(np.float64), nats], axis=1)))]
