"""Kernels and noise terms of the log ratio of divergence to table sum: a trend, errors of prices, interactions, and similarity of plans.

All are written in the shares r_u of the sum s, because a relative error of a price moves the logarithm of the sum by that share:

    log Σ_u t_u (1 + θ_u) = log s + Σ_u r_u θ_u + …
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.plans.additive_gp import Floats, Kernel, NoiseTerm
from bitwright.predictors.plans.cost_shares import CostShares


@dataclass(frozen=True)
class Constant(Kernel):
    """Constant kernel: one unknown factor between the table's units and nats."""

    prior_median: float = 10.0
    prior_log_std: float = 0.0

    def covariance(self, first: CostShares, second: CostShares) -> Floats:
        """Return ones `(n_first, n_second)`."""
        return np.ones((len(first), len(second)))

    def variance(self, shares: CostShares) -> Floats:
        """Return ones `(n,)`."""
        return np.ones(len(shares))


@dataclass(frozen=True)
class LogLinear(Kernel):
    """Linear kernel in the logarithm of the sum less `centre`: divergence as a power of the sum."""

    centre: float
    prior_median: float = 0.3
    prior_log_std: float = 0.0

    def covariance(self, first: CostShares, second: CostShares) -> Floats:
        """Return products of centred log-sums `(n_first, n_second)`."""
        return np.outer(first.log_sum - self.centre, second.log_sum - self.centre)

    def variance(self, shares: CostShares) -> Floats:
        """Return squares of centred log-sums `(n,)`."""
        squares: Floats = (shares.log_sum - self.centre) ** 2
        return squares


@dataclass(frozen=True)
class RBF(Kernel):
    """Squared-exponential kernel in the logarithm of the sum, with the length scale `length`: errors compound, then saturate."""

    length: float = 1.0
    prior_median: float = 0.1
    prior_log_std: float = 1.0

    def covariance(self, first: CostShares, second: CostShares) -> Floats:
        """Return the squared-exponential of differences of log-sums `(n_first, n_second)`."""
        curve: Floats = np.exp(-(((first.log_sum[:, None] - second.log_sum) / self.length) ** 2) / 2)
        return curve

    def variance(self, shares: CostShares) -> Floats:
        """Return ones `(n,)`."""
        return np.ones(len(shares))


@dataclass(frozen=True)
class UnitErrors(Kernel):
    """Kernel of one relative error for all prices of a unit."""

    prior_median: float = 0.3
    prior_log_std: float = 1.0

    def covariance(self, first: CostShares, second: CostShares) -> Floats:
        """Return inner products of the shares of units `(n_first, n_second)`."""
        return first.parts @ second.parts.T

    def variance(self, shares: CostShares) -> Floats:
        """Return sums of squared shares `(n,)`."""
        squares: Floats = (shares.parts**2).sum(axis=1)
        return squares


@dataclass(frozen=True)
class PriceErrors(Kernel):
    """Kernel of an independent relative error for every price, i.e. ridge regression on one-hot choices of `n_formats` formats."""

    n_formats: int
    prior_median: float = 0.3
    prior_log_std: float = 1.0

    def covariance(self, first: CostShares, second: CostShares) -> Floats:
        """Return inner products of the shares of pairs `(n_first, n_second)`."""
        return one_hot(first, self.n_formats) @ one_hot(second, self.n_formats).T

    def variance(self, shares: CostShares) -> Floats:
        """Return sums of squared shares `(n,)`."""
        squares: Floats = (shares.parts**2).sum(axis=1)
        return squares


@dataclass(frozen=True)
class Matern52(Kernel):
    """Matérn kernel (ν = 5/2; Rasmussen & Williams, 2006, equation 4.17) of the distance between the plans' `amplitudes`: similar plans, similar
    errors.
    """

    centre: float
    length: float = 1.0
    prior_median: float = 0.3
    prior_log_std: float = 1.0

    def covariance(self, first: CostShares, second: CostShares) -> Floats:
        """Return the Matérn-5/2 function of distances between amplitudes `(n_first, n_second)`."""
        a, b = amplitudes(first, self.centre), amplitudes(second, self.centre)
        squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
        distance = np.sqrt(5 * np.maximum(squared, 0)) / self.length
        near: Floats = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return near

    def variance(self, shares: CostShares) -> Floats:
        """Return ones `(n,)`."""
        return np.ones(len(shares))


@dataclass(frozen=True, eq=False)
class PairErrors(Kernel):
    """Kernel of interactions √(r_u r_v) φ_uv between `pairs` `(n_pairs, 2)` of units, whose errors add up or cancel.

    The cross term of a quadratic form is linear in each of two changes of weights, and the prices are their squares; hence the square root.
    """

    pairs: NDArray[np.int64]
    prior_median: float = 0.1
    prior_log_std: float = 1.0

    def covariance(self, first: CostShares, second: CostShares) -> Floats:
        """Return inner products of products of neighbours' shares `(n_first, n_second)`."""
        return products(first, self.pairs) @ products(second, self.pairs).T

    def variance(self, shares: CostShares) -> Floats:
        """Return sums of squared products of neighbours' shares `(n,)`."""
        squares: Floats = (products(shares, self.pairs) ** 2).sum(axis=1)
        return squares


@dataclass(frozen=True)
class ConstantNoise(NoiseTerm):
    """Noise of equal variance for all choices."""

    prior_median: float = 0.03
    prior_log_std: float = 1.0

    def variance(self, shares: CostShares) -> Floats:
        """Return ones `(n,)`."""
        return np.ones(len(shares))


@dataclass(frozen=True)
class ConcentrationNoise(NoiseTerm):
    """Noise that grows where few units make up most of the sum, so that their errors do not average out."""

    prior_median: float = 0.1
    prior_log_std: float = 1.0

    def variance(self, shares: CostShares) -> Floats:
        """Return sums of squared shares `(n,)`: the fewer units, the more noise."""
        squares: Floats = (shares.parts**2).sum(axis=1)
        return squares


@dataclass(frozen=True)
class DistanceNoise(NoiseTerm):
    """Noise that grows with the distance of the logarithm of the sum from `centre`."""

    centre: float
    prior_median: float = 0.1
    prior_log_std: float = 1.0

    def variance(self, shares: CostShares) -> Floats:
        """Return squares of centred log-sums `(n,)`: the farther from the centre, the more noise."""
        squares: Floats = (shares.log_sum - self.centre) ** 2
        return squares


def one_hot(shares: CostShares, n_formats: int) -> Floats:
    """Return one-hot choices scaled by cost shares: each unit's share at its format, 0 elsewhere, `(n, n_units * n_formats)`."""
    n, n_units = shares.parts.shape
    flat = np.zeros((n, n_units * n_formats))
    np.put_along_axis(flat, np.arange(n_units) * n_formats + shares.choices, shares.parts, axis=1)
    return flat


def amplitudes(shares: CostShares, centre: float) -> Floats:
    """Return √(price / e^centre) of each unit `(n, n_units)`: roughly the norm of the error that its format makes.

    Distances between amplitudes respect the order of a unit's formats, with fine formats close together and coarse ones far apart, and a unit that
    costs little in any format hardly counts.
    """
    sizes: Floats = np.sqrt(shares.parts * np.exp(shares.log_sum - centre)[:, None])
    return sizes


def products(shares: CostShares, pairs: NDArray[np.int64]) -> Floats:
    """Return √(r_u r_v) for each of `pairs` `(n_pairs, 2)`: `(n, n_pairs)`."""
    roots = np.sqrt(shares.parts)
    both: Floats = roots[:, pairs[:, 0]] * roots[:, pairs[:, 1]]
    return both
