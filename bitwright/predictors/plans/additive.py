"""Additive predictor: the table's sum times one fitted factor, as a baseline for the others. See `scale` for the factor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.plans.agreement import sums
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.plans.scale import fit_scale
from bitwright.spaces import Choices


@dataclass(frozen=True, eq=False)
class AdditivePredictor(Predictor):
    """Sum a `table` `(n_units, n_formats)` in any units. Without measurements the factor is 1 and the standard deviation is the value itself.

    The standard deviation is that of the ratios measured/summed; it includes the measurement noise, and so is rather too wide.
    """

    table: NDArray[np.float64]

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:  # noqa: ARG002
        """Fit the scale of the table's sums to `values`, for any number of choices; `errors` are not used."""
        scale = fit_scale(sums(self.table, choices).tolist(), values.tolist())

        def predict(others: Choices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            mean = scale.factor * np.maximum(sums(self.table, others), 0.0)
            return mean, mean * min(scale.relative_error, 1.0)

        return predict
