"""A table's sum times one fitted factor: the plainest predictor, and the one to beat. See `scale` for the factor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.plans.agreement import sums
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.plans.scale import fit_scale
from bitwright.spaces import Choices


@dataclass(frozen=True, eq=False)
class AdditivePredictor(Predictor):
    """Sums a `table` `(n_units, n_formats)` in any units. Before anything is measured the factor is 1 and the deviation the value itself.

    The deviation is the scatter of the ratios measured/summed, with the measurements' noise in it: it errs on the wide side.
    """

    table: NDArray[np.float64]

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:  # noqa: ARG002
        """See `Predictor.fit`; no number of choices is too small, and `errors` are not used."""
        scale = fit_scale(sums(self.table, choices).tolist(), values.tolist())

        def predict(others: Choices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            mean = scale.factor * np.maximum(sums(self.table, others), 0.0)
            return mean, mean * min(scale.relative_error, 1.0)

        return predict
