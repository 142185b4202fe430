import numpy as np
import pytest

from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from bitwright.predictors.sensitivity.gradients.shrinkage import shrunk_table
from bitwright.predictors.sensitivity.gradients.sweep import Products

N_TOKENS = 16


def products_of(values: np.ndarray) -> Products:
    return Products(values, np.zeros(values.shape[:2]), N_TOKENS)


def sequences(prices: np.ndarray, n: int, rng: np.random.Generator) -> Products:
    """Products of `n` sequences whose true prices are `prices` `(n_units, n_formats)`: normal, as the sum over many tokens is."""
    return products_of(rng.standard_normal((n, *prices.shape)) * np.sqrt(2 * N_TOKENS * prices))


def units(rng: np.random.Generator, n_units: int, deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors of formats, and prices that are proportional to them within a unit up to `deviation` (standard deviation of the logarithm)."""
    error = 4.0 ** -np.arange(6) * np.exp(rng.normal(0, 0.3, (n_units, 6)))
    return error, error * np.exp(rng.normal(0, 2, (n_units, 1)) + rng.normal(0, deviation, error.shape))


def mean_squared(found: np.ndarray, true: np.ndarray) -> float:
    return float(((np.log(found) - np.log(true)) ** 2).mean())


def test_prices_without_noise_stay() -> None:
    rng = np.random.default_rng(0)
    _, prices = units(rng, 5, 1.0)
    signs = np.where(rng.random((7, *prices.shape)) < 0.5, -1, 1)
    products = products_of(signs * np.sqrt(2 * N_TOKENS * prices))  # every sequence says the same
    np.testing.assert_allclose(shrunk_table(products, rng.random(prices.shape) + 0.1), prices, rtol=1e-9)


def test_prices_that_are_noise_are_pooled_within_the_unit() -> None:
    """Deviations of one per cent with a sampling error of a third: all that is left is each unit's own factor times the error."""
    rng = np.random.default_rng(0)
    error, prices = units(rng, 5, 0.01)
    values = np.zeros((4, *prices.shape))
    values[:2] = np.sqrt(2 * 2 * N_TOKENS * prices)  # half of the sequences say nothing
    found = shrunk_table(products_of(values), error)
    factor = np.exp(np.log(prices / error).mean(axis=1, keepdims=True))
    np.testing.assert_allclose(found, factor * error, rtol=1e-9)
    assert np.abs(found / prices - 1).max() > 0.005


@pytest.mark.parametrize("seed", range(5))
def test_noisy_prices_come_closer_to_the_truth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    error, prices = units(rng, 30, 0.2)
    products = sequences(prices, 16, rng)
    assert mean_squared(shrunk_table(products, error), prices) < 0.6 * mean_squared(gradient_table(products), prices)


@pytest.mark.parametrize("seed", range(5))
def test_prices_that_are_known_well_are_not_harmed(seed: int) -> None:
    """Shrinkage must not do harm with errors unrelated to prices and many sequences."""
    rng = np.random.default_rng(seed)
    error, prices = units(rng, 30, 1.0)
    products = sequences(prices, 200, rng)
    assert mean_squared(shrunk_table(products, error), prices) < 1.02 * mean_squared(gradient_table(products), prices)


def test_the_unit_of_the_errors_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    error, prices = units(rng, 4, 0.3)
    products = sequences(prices, 8, rng)
    np.testing.assert_allclose(shrunk_table(products, error), shrunk_table(products, 1000 * error))


def test_one_sequence_says_nothing_of_its_noise() -> None:
    rng = np.random.default_rng(2)
    error, prices = units(rng, 4, 0.3)
    products = sequences(prices, 1, rng)
    np.testing.assert_array_equal(shrunk_table(products, error), gradient_table(products))


def test_zeros_and_missing_pairs_stay() -> None:
    rng = np.random.default_rng(3)
    error, prices = units(rng, 4, 0.3)
    prices[0, 0] = 0  # stored as it is
    prices[1] = 0  # a unit that no token reached
    error[2, 1], error[3, 2] = 0, np.nan
    products = sequences(prices, 8, rng)
    found = shrunk_table(products, error)
    for pair in ((0, 0), (1, slice(None)), (2, 1), (3, 2)):
        np.testing.assert_array_equal(found[pair], gradient_table(products)[pair])
    assert np.isfinite(found).all()
    assert (found[0, 1:] != gradient_table(products)[0, 1:]).all()


def test_nothing_but_zeros_stays() -> None:
    products = products_of(np.zeros((4, 2, 3)))
    np.testing.assert_array_equal(shrunk_table(products, np.ones((2, 3))), np.zeros((2, 3)))
