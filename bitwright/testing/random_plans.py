"""Measured plans whose truth is known: a table, and divergences that are its sums, a power of them, or sums with interactions."""

from dataclasses import dataclass

import numpy as np

from bitwright.spaces import Choices

N_UNITS, N_FORMATS = 12, 4


@dataclass(frozen=True, eq=False)
class Plans:
    """`table` that may be wrong, and choices with their `truth` `(n,)`, measured `values` and standard errors."""

    table: np.ndarray
    choices: Choices
    truth: np.ndarray
    values: np.ndarray
    errors: np.ndarray

    def part(self, index: slice) -> "Plans":
        """Return the plans at `index`."""
        return Plans(self.table, self.choices[index], self.truth[index], self.values[index], self.errors[index])

    def known(self) -> tuple[Choices, np.ndarray, np.ndarray]:
        """Training data of a predictor."""
        return self.choices, self.values, self.errors


def true_table(rng: np.random.Generator) -> np.ndarray:
    """Prices that fall by about a factor of four from format to format, of units that differ by about as much."""
    levels = rng.normal(0, 0.8, (N_UNITS, 1)) - 1.4 * np.arange(N_FORMATS) + rng.normal(0, 0.2, (N_UNITS, N_FORMATS))
    return 0.05 * np.exp(levels)


def additive(n: int, *, noise: float, seed: int = 0) -> Plans:
    """0.7 × the table's sum, measured with a relative error of `noise`."""
    rng = np.random.default_rng(seed)
    table = true_table(rng)
    return _measured(table, _choices(n, rng), 0.7 * table, noise=noise, rng=rng)


def mispriced(n: int, *, factor: float, noise: float, seed: int = 0) -> Plans:
    """Draw plans like `additive`, with a table whose prices of the most expensive unit are too low by `factor`."""
    rng = np.random.default_rng(seed)
    true = true_table(rng)
    table = true.copy()
    table[true.sum(axis=1).argmax()] /= factor
    return _measured(table, _choices(n, rng), true, noise=noise, rng=rng)


def interacting(n: int, *, strength: float, noise: float, seed: int = 0) -> Plans:
    """Draw plans of a quadratic form: prices, and for every pair of units 2 √(t_u t_v) φ with φ of deviation `strength`; the table has the prices
    to within a quarter and no pairs.
    """
    rng = np.random.default_rng(seed)
    true = true_table(rng)
    choices = _choices(n, rng)
    roots = np.sqrt(true[np.arange(N_UNITS), choices])
    phi = np.triu(rng.normal(0, strength, (N_UNITS, N_UNITS)), k=1)
    truth = (roots**2).sum(axis=1) + 2 * np.einsum("iu,uv,iv->i", roots, phi, roots)
    return _noisy(true * np.exp(rng.normal(0, 0.25, true.shape)), choices, truth, noise=noise, rng=rng)


def _choices(n: int, rng: np.random.Generator) -> Choices:
    shares = rng.dirichlet(np.ones(N_FORMATS), n)  # of formats, so that plans differ in size
    return np.array([rng.choice(N_FORMATS, N_UNITS, p=share) for share in shares], dtype=np.int64).reshape(n, N_UNITS)


def _measured(table: np.ndarray, choices: Choices, true: np.ndarray, *, noise: float, rng: np.random.Generator) -> Plans:
    return _noisy(table, choices, true[np.arange(N_UNITS), choices].sum(axis=1), noise=noise, rng=rng)


def _noisy(table: np.ndarray, choices: Choices, truth: np.ndarray, *, noise: float, rng: np.random.Generator) -> Plans:
    values = truth * (1 + noise * rng.standard_normal(len(truth)))
    return Plans(table, choices, truth, values, noise * truth)
