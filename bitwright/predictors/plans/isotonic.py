"""Isotonic predictor: a monotone map from the table's sum to divergence, which keeps the table's ranking.

The map is the isotonic regression of log value on log sum (Ayer et al., Annals of Mathematical Statistics 26, 1955: pool adjacent violators),
interpolated linearly between the centres of its blocks, which makes it strictly increasing, and extrapolated with the slope of the least-squares line
through all points, at least 0.1. The standard deviation is the root mean square of the leave-one-out residuals of the logarithm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from bitwright.predictors.plans.cost_shares import cost_shares
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.sensitivity.samples import require_samples
from bitwright.spaces import Choices

Floats = NDArray[np.float64]

_NEEDED = 4
_LEAST_SLOPE = 0.1
_LEAST_VARIANCE = 1e-12


@dataclass(frozen=True, eq=False)
class IsotonicPredictor(Predictor):
    """Monotone map from the sums of a `table` `(n_units, n_formats)`, in any units, to divergence."""

    table: NDArray[np.float64]

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        """Fit an increasing function of log-sums; choices with a sum or value not above zero are left out.

        Raises:
            UserError: fewer than four choices with a sum and a value above zero.
        """
        log_sums = cost_shares(self.table, choices).log_sum
        usable = np.isfinite(log_sums) & (values > 0)
        require_samples(choices[usable], _NEEDED, "The isotonic predictor")
        x, y = log_sums[usable], np.log(values[usable])
        weights = 1 / ((errors[usable] / values[usable]) ** 2 + y.var() / len(y) + _LEAST_VARIANCE)
        curve = _rising(x, y, weights)
        left_out = [y[i] - _rising(*(np.delete(each, i) for each in (x, y, weights))).at(x[i : i + 1])[0] for i in range(len(x))]
        deviation = float(np.sqrt(np.mean(np.square(left_out))))

        def predict(others: Choices) -> tuple[Floats, Floats]:
            mean = np.exp(curve.at(cost_shares(self.table, others).log_sum))
            return mean, mean * min(deviation, 1.0)

        return predict


@dataclass(frozen=True, eq=False)
class _Curve:
    """Increasing piecewise linear function through the points `(x, y)`, each `(n_blocks,)`, extrapolated with `slope`."""

    x: Floats
    y: Floats
    slope: float

    def at(self, x: Floats) -> Floats:
        """Evaluate the function at `x` `(n,)`; −∞ at −∞."""
        beyond = np.minimum(x - self.x[0], 0.0) + np.maximum(x - self.x[-1], 0.0)
        height: Floats = np.interp(x, self.x, self.y) + self.slope * beyond
        return height


def _rising(x: Floats, y: Floats, weights: Floats) -> _Curve:
    """Fit the function to points `(n,)`; points of equal x are merged."""
    places, inverse = np.unique(x, return_inverse=True)
    loads = np.bincount(inverse, weights=weights)
    fitted = isotonic_regression(np.bincount(inverse, weights=weights * y) / loads, weights=loads)
    starts = fitted.blocks[:-1]
    centres = np.add.reduceat(loads * places, starts) / np.add.reduceat(loads, starts)
    off = x - np.average(x, weights=weights)
    spread = float(weights @ off**2)
    slope = float(weights @ (off * y)) / spread if spread > 0 else 1.0
    return _Curve(centres, fitted.x[starts], max(slope, _LEAST_SLOPE))
