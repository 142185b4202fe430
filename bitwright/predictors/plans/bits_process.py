"""Gaussian process on vectors of bits, with no table behind it: the surrogate of QPruner (2412.11629), which knows of a choice only its bits.

    value = c + f(z) + noise,   z_u = bits per weight of unit u's format, 0 for the narrowest of the menu and 1 for the widest

f has a Matérn covariance (ν = 5/2; Rasmussen & Williams, 2006, equation 4.17) of the distance between vectors z. Its variance and scale and the noise
maximise the marginal likelihood of the standardised values (equation 2.30), c is their mean. Which kernel QPruner takes is not known here; one scale
for all units is this file's, since a few dozen measurements could not tell one for each.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.sensitivity.samples import require_samples
from bitwright.spaces import Choices, Space

Floats = NDArray[np.float64]

_NEEDED = 4
_LEAST_NOISE = 1e-6  # variance, of a standardised value
_STARTS = ((0.0, -1.0, -4.0), (0.0, 1.0, -2.0))  # log variance, log scale over the median distance, log noise
_RANGE = ((-6.0, 6.0), (-4.0, 4.0), (float(np.log(_LEAST_NOISE)), 2.0))


@dataclass(frozen=True, eq=False)
class BitsProcessPredictor(Predictor):
    """Gaussian process over the choices of a `space`."""

    space: Space

    def fit(self, choices: Choices, values: Floats, errors: Floats) -> Predict:
        """Fit a Gaussian process on bits with learnt noise; `errors` are not used.

        Raises:
            UserError: fewer than four choices.
        """
        del errors
        require_samples(choices, _NEEDED, "The Gaussian process on bits")
        known, centre, spread = self._bits(choices), float(values.mean()), float(values.std()) or 1.0
        targets, distances = (values - centre) / spread, cdist(known, known)
        unit = float(np.median(distances[distances > 0])) if (distances > 0).any() else 1.0
        found = [minimize(_surprise, start, (distances / unit, targets), method="L-BFGS-B", bounds=_RANGE) for start in _STARTS]
        variance, scale, noise = np.exp(min(found, key=lambda one: float(one.fun)).x) * (1.0, unit, 1.0)
        factor = cho_factor(_matern(distances, variance, scale) + noise * np.eye(len(known)))
        weights = cho_solve(factor, targets)

        def predict(others: Choices) -> tuple[Floats, Floats]:
            covariance = _matern(cdist(self._bits(others), known), variance, scale)  # (n_others, n_known)
            left = variance - np.einsum("ok,ko->o", covariance, cho_solve(factor, covariance.T))
            return centre + spread * (covariance @ weights), spread * np.sqrt(np.maximum(left, 0.0) + noise)

        return predict

    def _bits(self, choices: Choices) -> Floats:
        """Return the vectors z `(n, n_units)` of choices `(n, n_units)`."""
        widths = np.array([form.bits_per_weight for form in self.space.formats])
        used = widths[self.space.offered.any(axis=0)]
        scaled: Floats = (widths[choices] - used.min()) / (float(np.ptp(used)) or 1.0)
        return scaled


def _matern(distances: Floats, variance: float, scale: float) -> Floats:
    reach = np.sqrt(5.0) * distances / scale
    covariance: Floats = variance * (1 + reach + reach**2 / 3) * np.exp(-reach)
    return covariance


def _surprise(logs: Floats, distances: Floats, targets: Floats) -> float:
    """Minus the log marginal likelihood, but for a constant."""
    variance, scale, noise = np.exp(logs)
    covariance = _matern(distances, variance, scale) + noise * np.eye(len(targets))
    lower, _ = cho_factor(covariance, lower=True)
    return float(targets @ cho_solve((lower, True), targets) / 2 + np.log(np.diag(lower)).sum())
