"""Link from the sum of a sensitivity table over a whole plan to the plan's divergence, fitted to the run's own measured plans.

The sum ranks plans and misses their size: errors of units compound at first and saturate later, so the factor between sum and divergence rises and
falls along a front. The link goes through the measured plans of the front (uniform allocations have another factor and are left out): the logarithm
of the divergence is interpolated in that of the sum, beyond the measured ones their factor holds, and no larger sum has a smaller divergence (the
measured ones are first made monotone; Barlow et al., 1972). From two measured plans on, that is nearer to the other plans of the front than one
factor, the stretched curve log D = a + b log Σ, and the coverage c · (1 - exp(-s Σ)) of NVIDIA's ModelOpt: `benchmarks/links.py`,
docs/predictors.md.

The standard error of a prediction combines the leave-one-out error of the interpolation with the error of the measurements.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from bitwright.objectives import Measurement
from bitwright.pipeline.run import Run
from bitwright.search import nondominated

Floats = NDArray[np.float64]
_FEWEST = 2
_FEWEST_TO_LEAVE_ONE_OUT = 3


@dataclass(frozen=True)
class PredictedDivergence:
    """Predicted divergence in nats per token, with its standard error."""

    nats_per_token: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class Link:
    """Link through the logarithms of sums `(n,)`, ascending, and of the divergences there `(n,)`, not descending, with its relative error."""

    log_sums: Floats
    log_nats: Floats
    relative_error: float

    def __call__(self, summed: float) -> PredictedDivergence:
        """Predict the divergence of a choice whose table entries sum to `summed`."""
        nats = float(self.nats(np.array([summed]))[0])
        return PredictedDivergence(nats, nats * min(self.relative_error, 1.0))

    def nats(self, sums: Floats) -> Floats:
        """Predict the divergences `(n,)` in nats/token of choices with these `sums` `(n,)`; 0 for a sum of 0 or less."""
        logs = np.log(np.where(sums > 0, sums, 1.0))
        factors = np.interp(logs, self.log_sums, self.log_nats - self.log_sums)
        linked: Floats = np.where(sums > 0, np.exp(logs + factors), 0.0)
        return linked


def fit_link(sums: Sequence[float], nats: Sequence[float], *, noise: float, otherwise: float) -> Link:
    """Fit a link to choices with these `sums` and measured `nats`, two or more of each and above 0. `noise` is the relative error of a measurement;
    `otherwise` is the relative error of the link where there are too few to leave one out.
    """
    order = np.lexsort((nats, sums))
    log_sums, measured = np.log(np.array(sums)[order]), np.log(np.array(nats)[order])
    error = otherwise
    if len(order) >= _FEWEST_TO_LEAVE_ONE_OUT:
        factors = measured - log_sums
        missed = [np.interp(log_sums[i], np.delete(log_sums, i), np.delete(factors, i)) - factors[i] for i in range(1, len(order) - 1)]
        error = float(np.sqrt(np.mean(np.square(missed))))
    return Link(log_sums, isotonic_regression(measured).x, float(np.hypot(error, noise)))


def link_of(run: Run) -> Link:
    """Fit the link to a run's measurements; with fewer than two on the front, use the run's single factor."""
    front = [(run.summed(np.array(m.choice)), m) for m in measured_front(run)]
    known = [(summed, m) for summed, m in front if summed > 0 and m.nats_per_token > 0]
    if len(known) < _FEWEST:
        return Link(np.zeros(1), np.full(1, np.log(run.scale.factor)), run.scale.relative_error)
    sums, measured = zip(*known, strict=True)
    noise = float(np.median([m.standard_error / m.nats_per_token for m in measured]))
    return fit_link(sums, [m.nats_per_token for m in measured], noise=noise, otherwise=run.scale.relative_error)


def measured_front(run: Run) -> list[Measurement]:
    """Return the Pareto-optimal measured choices in size and divergence."""
    measured = list(run.measurements.values())
    if not measured:
        return []
    sizes = run.space.total_bits(np.array([m.choice for m in measured]))
    nats = np.array([m.nats_per_token for m in measured])
    return [measured[row] for row in np.flatnonzero(nondominated(np.stack([sizes.astype(np.float64), nats], axis=1)))]
