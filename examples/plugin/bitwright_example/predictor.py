"""Least squares of the logarithm of the divergence on the logarithm of the table's sum: a power law."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors import NamedPredictor, Predict, Predictor, require_samples
from bitwright.spaces import Choices

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PowerLaw(Predictor):
    """Predictor from a sensitivity table `(n_units, n_formats)`."""

    table: Values

    def fit(self, choices: Choices, values: Values, errors: Values) -> Predict:
        """Fit a line to the logarithms of sums and values."""
        require_samples(choices, 3, "The power law")
        power, factor = np.polyfit(np.log(self.sums(choices)), np.log(values), 1)
        left = np.log(values) - power * np.log(self.sums(choices)) - factor
        spread = np.sqrt((left**2).sum() / (len(values) - 2))

        def predict(others: Choices) -> tuple[Values, Values]:
            mean = np.exp(factor) * self.sums(others) ** power
            return mean, spread * mean

        return predict

    def sums(self, choices: Choices) -> Values:
        """Return the table summed over choices `(n, n_units)`: `(n,)`."""
        return self.table[np.arange(len(self.table)), choices].sum(axis=1)


POWER_LAW = NamedPredictor("power-law", lambda space, table, seed: PowerLaw(table))
