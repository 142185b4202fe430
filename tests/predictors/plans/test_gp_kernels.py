import numpy as np
import pytest

from bitwright.predictors.plans.additive_gp import Kernel, NoiseTerm
from bitwright.predictors.plans.cost_shares import CostShares, cost_shares
from bitwright.predictors.plans.gp_kernels import (
    RBF,
    ConcentrationNoise,
    Constant,
    ConstantNoise,
    DistanceNoise,
    LogLinear,
    Matern52,
    PairErrors,
    PriceErrors,
    UnitErrors,
    amplitudes,
    one_hot,
    products,
)
from bitwright.testing.random_plans import N_FORMATS, additive

PAIRS = np.array([[0, 1], [3, 7]])
KERNELS: list[Kernel] = [Constant(), LogLinear(-2.0), RBF(), UnitErrors(), PriceErrors(N_FORMATS), Matern52(-2.0), PairErrors(PAIRS)]
NOISE_TERMS: list[NoiseTerm] = [ConstantNoise(), ConcentrationNoise(), DistanceNoise(-2.0)]


def some(n: int = 20) -> CostShares:
    plans = additive(n, noise=0.0)
    return cost_shares(plans.table, plans.choices)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
def test_a_kernel_is_a_covariance(kernel: Kernel) -> None:
    shares = some()
    covariance = kernel.covariance(shares, shares)
    np.testing.assert_allclose(covariance, covariance.T)
    np.testing.assert_allclose(np.diag(covariance), kernel.variance(shares), rtol=1e-6)
    assert np.linalg.eigvalsh(covariance).min() > -1e-8 * len(shares)
    np.testing.assert_allclose(kernel.covariance(shares.only(slice(5)), shares), covariance[:5])


@pytest.mark.parametrize("noise_term", NOISE_TERMS, ids=lambda noise_term: type(noise_term).__name__)
def test_a_noise_term_is_a_variance(noise_term: NoiseTerm) -> None:
    found = noise_term.variance(some())
    assert found.shape == (20,)
    assert (found >= 0).all()


def drawn(of_error: np.ndarray, n: int = 40_000) -> np.ndarray:
    """The covariance `(n_plans, n_plans)` of what errors of deviation 1 do, by drawing them: `of_error` `(n_plans, n_errors)`."""
    moved = np.random.default_rng(0).standard_normal((n, of_error.shape[1])) @ of_error.T
    return np.cov(moved, rowvar=False)


@pytest.mark.slow
def test_wrong_prices_move_the_logarithm_of_the_sum_by_their_share() -> None:
    plans = additive(6, noise=0.0)
    shares, small, rng = cost_shares(plans.table, plans.choices), 1e-3, np.random.default_rng(1)
    for kernel, shape in ((UnitErrors(), (len(plans.table), 1)), (PriceErrors(N_FORMATS), plans.table.shape)):
        moved = [
            (cost_shares(plans.table * (1 + small * rng.standard_normal(shape)), plans.choices).log_sum - shares.log_sum) / small for _ in range(4000)
        ]
        np.testing.assert_allclose(np.cov(moved, rowvar=False), kernel.covariance(shares, shares), atol=0.06 * kernel.variance(shares).max())


def test_pairs_move_it_by_the_root_of_the_product() -> None:
    shares = some(6)
    np.testing.assert_allclose(products(shares, PAIRS)[:, 1], np.sqrt(shares.parts[:, 3] * shares.parts[:, 7]))
    np.testing.assert_allclose(PairErrors(PAIRS).covariance(shares, shares), drawn(products(shares, PAIRS)), atol=0.02)


def test_one_hot_shares_are_at_the_format_that_was_chosen() -> None:
    shares = some(6)
    flat = one_hot(shares, N_FORMATS).reshape(6, -1, N_FORMATS)
    np.testing.assert_array_equal(flat.sum(axis=2), shares.parts)
    np.testing.assert_array_equal(flat.argmax(axis=2), shares.choices)


def test_similar_plans_cost_the_same_unit_by_unit() -> None:
    """A costly unit by one format is farther than a cheap unit by all; and formats are in order."""
    plans = additive(1, noise=0.0)
    dear, cheap = int(plans.table[:, 0].argmax()), int(plans.table[:, 0].argmin())
    start = np.full(len(plans.table), 1)

    def moved(unit: int, form: int) -> np.ndarray:
        other = start.copy()
        other[unit] = form
        return other

    shares = cost_shares(plans.table, np.array([start, moved(dear, 2), moved(dear, 3), moved(cheap, 3)]))
    near = Matern52(float(shares.log_sum[0])).covariance(shares, shares)[0]
    assert near[0] == pytest.approx(1)
    assert near[3] > near[1] > near[2]


def test_amplitudes_are_roots_of_prices() -> None:
    plans = additive(6, noise=0.0)
    shares = cost_shares(plans.table, plans.choices)
    prices = plans.table[np.arange(len(plans.table)), plans.choices]
    np.testing.assert_allclose(amplitudes(shares, np.log(4.0)), np.sqrt(prices) / 2)
