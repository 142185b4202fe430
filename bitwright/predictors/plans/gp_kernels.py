"""The effects that make a choice's divergence differ from the sum of a table: a trend, wrong prices, interactions, and what is like in like plans.

All of them are written in shares r_u of the sum s, because an error of a price moves the logarithm of the sum by just that share:

    log Σ_u t_u (1 + θ_u) = log s + Σ_u r_u θ_u + …
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.plans.additive_gp import Effect, Floats, Scatter
from bitwright.predictors.plans.cost_shares import Shares


@dataclass(frozen=True)
class Factor(Effect):
    """One unknown factor between the table's units and nats."""

    guess: float = 10.0
    spread: float = 0.0

    def covariance(self, first: Shares, second: Shares) -> Floats:
        """See `Effect.covariance`."""
        return np.ones((len(first), len(second)))

    def variance(self, shares: Shares) -> Floats:
        """See `Effect.variance`."""
        return np.ones(len(shares))


@dataclass(frozen=True)
class Power(Effect):
    """Divergences that grow faster or more slowly than the sum, around `centre`, the logarithm of a sum."""

    centre: float
    guess: float = 0.3
    spread: float = 0.0

    def covariance(self, first: Shares, second: Shares) -> Floats:
        """See `Effect.covariance`."""
        return np.outer(first.log_sum - self.centre, second.log_sum - self.centre)

    def variance(self, shares: Shares) -> Floats:
        """See `Effect.variance`."""
        squares: Floats = (shares.log_sum - self.centre) ** 2
        return squares


@dataclass(frozen=True)
class Bend(Effect):
    """A smooth curve over the logarithm of the sum, which turns about once in `length`: errors compound, then saturate."""

    length: float = 1.0
    guess: float = 0.1
    spread: float = 1.0

    def covariance(self, first: Shares, second: Shares) -> Floats:
        """See `Effect.covariance`."""
        curve: Floats = np.exp(-(((first.log_sum[:, None] - second.log_sum) / self.length) ** 2) / 2)
        return curve

    def variance(self, shares: Shares) -> Floats:
        """See `Effect.variance`."""
        return np.ones(len(shares))


@dataclass(frozen=True)
class UnitErrors(Effect):
    """All prices of a unit too high or too low by one relative error."""

    guess: float = 0.3
    spread: float = 1.0

    def covariance(self, first: Shares, second: Shares) -> Floats:
        """See `Effect.covariance`."""
        return first.parts @ second.parts.T

    def variance(self, shares: Shares) -> Floats:
        """See `Effect.variance`."""
        squares: Floats = (shares.parts**2).sum(axis=1)
        return squares


@dataclass(frozen=True)
class PriceErrors(Effect):
    """Every price too high or too low by a relative error of its own: ridge regression on one-hot choices. There are `n_formats` formats."""

    n_formats: int
    guess: float = 0.3
    spread: float = 1.0

    def covariance(self, first: Shares, second: Shares) -> Floats:
        """See `Effect.covariance`."""
        return one_hot(first, self.n_formats) @ one_hot(second, self.n_formats).T

    def variance(self, shares: Shares) -> Floats:
        """See `Effect.variance`."""
        squares: Floats = (shares.parts**2).sum(axis=1)
        return squares


@dataclass(frozen=True)
class Likeness(Effect):
    """Whatever else alike plans have in common: a Matérn covariance (ν = 5/2; Rasmussen & Williams, 2006, equation 4.17) of the distance between
    their `amplitudes`.
    """

    centre: float
    length: float = 1.0
    guess: float = 0.3
    spread: float = 1.0

    def covariance(self, first: Shares, second: Shares) -> Floats:
        """See `Effect.covariance`."""
        a, b = amplitudes(first, self.centre), amplitudes(second, self.centre)
        squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
        distance = np.sqrt(5 * np.maximum(squared, 0)) / self.length
        near: Floats = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return near

    def variance(self, shares: Shares) -> Floats:
        """See `Effect.variance`."""
        return np.ones(len(shares))


@dataclass(frozen=True, eq=False)
class PairErrors(Effect):
    """Errors of `pairs` `(n_pairs, 2)` of units that add up or cancel, √(r_u r_v) φ_uv: what is linear in both changes of weights, and the prices are
    their squares.
    """

    pairs: NDArray[np.int64]
    guess: float = 0.1
    spread: float = 1.0

    def covariance(self, first: Shares, second: Shares) -> Floats:
        """See `Effect.covariance`."""
        return products(first, self.pairs) @ products(second, self.pairs).T

    def variance(self, shares: Shares) -> Floats:
        """See `Effect.variance`."""
        squares: Floats = (products(shares, self.pairs) ** 2).sum(axis=1)
        return squares


@dataclass(frozen=True)
class Even(Scatter):
    """The same for all choices."""

    guess: float = 0.03
    spread: float = 1.0

    def variance(self, shares: Shares) -> Floats:
        """See `Scatter.variance`."""
        return np.ones(len(shares))


@dataclass(frozen=True)
class Concentrated(Scatter):
    """Larger where few units make most of the sum, whose errors do not average out."""

    guess: float = 0.1
    spread: float = 1.0

    def variance(self, shares: Shares) -> Floats:
        """See `Scatter.variance`."""
        squares: Floats = (shares.parts**2).sum(axis=1)
        return squares


@dataclass(frozen=True)
class Outlying(Scatter):
    """Larger far from `centre`, the logarithm of a sum."""

    centre: float
    guess: float = 0.1
    spread: float = 1.0

    def variance(self, shares: Shares) -> Floats:
        """See `Scatter.variance`."""
        squares: Floats = (shares.log_sum - self.centre) ** 2
        return squares


def one_hot(shares: Shares, n_formats: int) -> Floats:
    """Each unit's share at the format that it has, 0 at its others: `(n, n_units * n_formats)`."""
    n, n_units = shares.parts.shape
    spread = np.zeros((n, n_units * n_formats))
    np.put_along_axis(spread, np.arange(n_units) * n_formats + shares.choices, shares.parts, axis=1)
    return spread


def amplitudes(shares: Shares, centre: float) -> Floats:
    """√(price / e^centre) of each unit `(n, n_units)`: about the size of the error that its format makes.

    So the formats of a unit lie along a line in their order, two fine ones close together and a coarse one far off, and a unit that costs little in
    any format hardly moves a plan.
    """
    sizes: Floats = np.sqrt(shares.parts * np.exp(shares.log_sum - centre)[:, None])
    return sizes


def products(shares: Shares, pairs: NDArray[np.int64]) -> Floats:
    """√(r_u r_v) of each of `pairs` `(n_pairs, 2)`: `(n, n_pairs)`."""
    roots = np.sqrt(shares.parts)
    both: Floats = roots[:, pairs[:, 0]] * roots[:, pairs[:, 1]]
    return both
