"""How far a predictor can be trusted on this model: every measured choice predicted by a fit to others, and compared with its measurement.

k-fold cross-validation (Stone, Journal of the Royal Statistical Society B 36, 1974). The folds are drawn once, with a seed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from bitwright.errors import UserError
from bitwright.predictors.plans.predictor import Predictor
from bitwright.spaces import Choices

Floats = NDArray[np.float64]

#: standard deviations on either side of the mean that hold 90 % of a normal variable
WITHIN_90 = 1.6448536269514722


@dataclass(frozen=True, eq=False)
class Validation:
    """Held-out predictions of measured choices, all `(n,)` in nats/token: the measured `values` and their own `noise`, the predicted `means` and
    `deviations`.
    """

    values: Floats
    noise: Floats
    means: Floats
    deviations: Floats

    def among(self, mask: NDArray[np.bool_]) -> "Validation":
        """The same for some choices only `(n,)`, those near the front for one: all ranks are then among them."""
        return Validation(self.values[mask], self.noise[mask], self.means[mask], self.deviations[mask])

    @property
    def spearman(self) -> float:
        """Spearman's rank correlation of predicted and measured; NaN for fewer than three choices or where one of the two does not vary."""
        return float(spearmanr(self.means, self.values)[0]) if self._varies else float("nan")

    @property
    def kendall(self) -> float:
        """Kendall's τ; NaN as above."""
        return float(kendalltau(self.means, self.values)[0]) if self._varies else float("nan")

    @property
    def root_mean_square(self) -> float:
        """Root mean square of predicted minus measured, nats/token."""
        return float(np.sqrt(np.mean((self.means - self.values) ** 2)))

    @property
    def coverage(self) -> float:
        """The share of choices whose measurement lies in its 90 % interval."""
        return float(np.mean(np.abs(self.means - self.values) <= self.half_widths))

    @property
    def half_widths(self) -> Floats:
        """Half of each 90 % interval `(n,)`, which is that of the prediction widened by the measurement's noise."""
        widths: Floats = WITHIN_90 * np.sqrt(self.deviations**2 + self.noise**2)
        return widths

    @property
    def _varies(self) -> bool:
        return len(self.values) >= 3 and bool(np.ptp(self.values) > 0 and np.ptp(self.means) > 0)


@dataclass(frozen=True)
class Folds:
    """How many parts the measured choices are dealt into at random, and the seed of the dealing."""

    n: int
    seed: int

    def of(self, n_choices: int) -> NDArray[np.int64]:
        """The fold of each choice `(n_choices,)`; no two folds differ by more than one in size.

        Raises:
            UserError: fewer than two folds, or more folds than choices.
        """
        if not 2 <= self.n <= n_choices:
            raise UserError(
                f"There must be two folds at least and {n_choices}, one for each measured choice, at most; there are {self.n}: change it."
            )
        dealt: NDArray[np.int64] = np.random.default_rng(self.seed).permutation(n_choices) % self.n
        return dealt


@dataclass(frozen=True, eq=False)
class Measured:
    """What a predictor learns from: `choices` `(n, n_units)`, `values` and standard errors `errors` `(n,)`.

    `noise` `(n,)` is by how much values scatter beside each other: the standard errors where every choice has text of its own, and 0 where all were
    measured on the same sequences and are predicted for these.
    """

    choices: Choices
    values: Floats
    errors: Floats
    noise: Floats


def cross_validate(predictor: Predictor, measured: Measured, folds: Folds) -> Validation:
    """Every choice predicted by a fit to the other folds.

    Raises:
        UserError: as `Folds.of`, or the choices outside a fold are too few for the predictor.
    """
    fold_of = folds.of(len(measured.values))
    means, deviations = np.empty(len(fold_of)), np.empty(len(fold_of))
    for fold in range(folds.n):
        out = fold_of == fold
        predict = predictor.fit(measured.choices[~out], measured.values[~out], measured.errors[~out])
        means[out], deviations[out] = predict(measured.choices[out])
    return Validation(measured.values, measured.noise, means, deviations)
