"""k-fold cross-validation of predictors (Stone, Journal of the Royal Statistical Society B 36, 1974).

Every measured choice is predicted by a fit to the other folds and compared with its measurement. The folds are drawn once, with a seed.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.predictors.plans.predictor import Predictor
from bitwright.spaces import Choices

Floats = NDArray[np.float64]

#: half-width, in standard deviations, of the 90 % interval of a normal distribution
WITHIN_90 = 1.6448536269514722


@dataclass(frozen=True, eq=False)
class Validation:
    """Held-out predictions of measured choices, all `(n,)` in nats/token: measured `values` and `noise`, predicted `means` and `deviations`."""

    values: Floats
    noise: Floats
    means: Floats
    deviations: Floats

    def among(self, mask: NDArray[np.bool_]) -> "Validation":
        """Return the validation of the choices in `mask` `(n,)` alone, e.g. those near the front; ranks are then among them."""
        return Validation(self.values[mask], self.noise[mask], self.means[mask], self.deviations[mask])

    @property
    def spearman(self) -> float:
        """Return Spearman's rank correlation of predicted and measured; NaN for fewer than three choices, or where one of the two is constant."""
        return float(scipy.stats.spearmanr(self.means, self.values)[0]) if self._varies else float("nan")

    @property
    def kendall(self) -> float:
        """Return Kendall's τ; NaN as for `spearman`."""
        return float(scipy.stats.kendalltau(self.means, self.values)[0]) if self._varies else float("nan")

    @property
    def root_mean_square(self) -> float:
        """Return the root mean square error of the predictions, nats/token."""
        return float(np.sqrt(np.mean((self.means - self.values) ** 2)))

    @property
    def coverage(self) -> float:
        """Return the share of choices whose measurement lies in its 90 % interval."""
        return float(np.mean(np.abs(self.means - self.values) <= self.half_widths))

    @property
    def half_widths(self) -> Floats:
        """Return the half-width of each 90 % interval `(n,)`: that of the prediction, widened by the measurement noise."""
        widths: Floats = WITHIN_90 * np.sqrt(self.deviations**2 + self.noise**2)
        return widths

    @property
    def _varies(self) -> bool:
        return len(self.values) >= 3 and bool(np.ptp(self.values) > 0 and np.ptp(self.means) > 0)


@dataclass(frozen=True)
class Folds:
    """Number `n` of random folds of a cross-validation, and the seed that assigns choices to them."""

    n: int
    seed: int

    def assign(self, n_choices: int) -> NDArray[np.int64]:
        """Return the fold of each choice `(n_choices,)`; fold sizes differ by at most one.

        Raises:
            UserError: fewer than two folds, or more folds than choices.
        """
        if not 2 <= self.n <= n_choices:
            raise UserError(
                f"The number of folds must be between 2 and {n_choices}, the number of measured choices; it is {self.n}: change it, or measure more."
            )
        assigned: NDArray[np.int64] = np.random.default_rng(self.seed).permutation(n_choices) % self.n
        return assigned


@dataclass(frozen=True, eq=False)
class Measured:
    """Training data of a predictor: `choices` `(n, n_units)`, their `values` and standard errors `errors`, both `(n,)`.

    `noise` `(n,)` is the part of the errors independent between choices: the standard errors where every choice was measured on text of its own, 0
    where all were measured on the same sequences and are predicted for these.
    """

    choices: Choices
    values: Floats
    errors: Floats
    noise: Floats


def cross_validate(predictor: Predictor, measured: Measured, folds: Folds) -> Validation:
    """Predict every choice by a fit to the other folds.

    Raises:
        UserError: as for `Folds.assign`, or the choices outside a fold are too few for the predictor.
    """
    fold_of = folds.assign(len(measured.values))
    means, deviations = np.empty(len(fold_of)), np.empty(len(fold_of))
    for fold in range(folds.n):
        out = fold_of == fold
        predict = predictor.fit(measured.choices[~out], measured.values[~out], measured.errors[~out])
        means[out], deviations[out] = predict(measured.choices[out])
    return Validation(measured.values, measured.noise, means, deviations)
