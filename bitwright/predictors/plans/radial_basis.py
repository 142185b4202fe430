"""Cubic radial basis functions with a linear tail on the format ranks of a choice: AMQ's default predictor (Lee et al., EMNLP 2025).

    value = Σ_i c_i ‖x − x_i‖³ + b₀ + b·x,   Σ c_i = 0,  Σ c_i x_i = 0

An interpolation (Powell, "The theory of radial basis function approximation in 1990"), solved by scipy. The linear tail has one coefficient for each
unit that varies and a constant, so it needs that many choices; AMQ's 250 initial choices just exceed its 221. A unit that never varies among the
measured choices is left out. The standard deviation is the root mean square of the leave-one-out residuals, which cost no further fit
(Rippa, Advances in Computational Mathematics 11, 1999): c_i over the i-th diagonal entry of the inverse of the system's matrix.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.sensitivity.samples import require_samples
from bitwright.spaces import Choices

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RadialBasisPredictor(Predictor):
    """Interpolation of measured choices alone, without a table; inputs are format ranks by `offered` `(n_units, n_formats)`, see `ranks`."""

    offered: NDArray[np.bool_]

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:  # noqa: ARG002
        """Interpolate `values`, averaged over repeated measurements of a choice; `errors` are not used.

        Raises:
            UserError: fewer distinct choices than units that vary plus one, or units that do not vary independently.
        """
        distinct, inverse = np.unique(choices, axis=0, return_inverse=True)
        means = np.bincount(inverse.ravel(), weights=values) / np.bincount(inverse.ravel())
        varies = np.ptp(distinct, axis=0) > 0 if len(distinct) else np.zeros(len(self.offered), dtype=np.bool_)
        n_varying = int(varies.sum())
        require_samples(distinct, n_varying + 1, f"A linear tail over {n_varying} units that vary")
        require_samples(distinct, 2, "Radial basis functions")
        points = ranks(self.offered, distinct)[:, varies]
        _require_independent(points)
        interpolant = scipy.interpolate.RBFInterpolator(points, means, kernel="cubic", degree=1)
        deviation = _left_out(points, means)

        def predict(others: Choices) -> tuple[Floats, Floats]:
            mean: Floats = interpolant(ranks(self.offered, others)[:, varies])
            return mean, np.full(len(others), deviation)

        return predict


def ranks(offered: NDArray[np.bool_], choices: Choices) -> Floats:
    """Return the rank of each chosen format among those `offered` `(n_units, n_formats)` to its unit: `(n, n_units)`, from 0."""
    numbers: Floats = (offered.cumsum(axis=1) - 1)[np.arange(len(offered)), choices].astype(np.float64)
    return numbers


def _require_independent(points: Floats) -> None:
    with_one = np.column_stack([np.ones(len(points)), points])
    rank = int(np.linalg.matrix_rank(with_one))
    if rank < with_one.shape[1]:
        raise UserError(
            f"A linear tail must have units that vary independently; the {len(points)} measured choices determine {rank} of its "
            f"{with_one.shape[1]} coefficients: measure other choices, or choose a predictor that starts from a table, such as ridge."
        )


def _left_out(points: Floats, values: Floats) -> float:
    """Return the root mean square of the leave-one-out residuals; the values' standard deviation where one choice less is too few for the tail."""
    n, tail = len(points), np.column_stack([np.ones(len(points)), points])
    if n <= tail.shape[1]:
        return float(values.std())
    middle, reach = points.mean(axis=0), np.ptp(points, axis=0) / 2
    tail[:, 1:] = (points - middle) / reach  # a better conditioned basis of the same tail
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    system = np.block([[distance**3, tail], [tail.T, np.zeros((tail.shape[1], tail.shape[1]))]])
    inverse = np.linalg.pinv(system)
    own = np.diag(inverse)[:n]
    fixed = np.abs(own) <= 1e-9 * np.abs(own).max()  # the tail is undetermined without this choice
    residuals = np.divide(inverse[:n, :n] @ values, own, out=np.full(n, values.std()), where=~fixed)
    return float(np.sqrt(np.mean(residuals**2)))
