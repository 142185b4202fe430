import numpy as np
import pytest

from bitwright.predictors.plans.additive_gp import Effect, Scatter
from bitwright.predictors.plans.cost_shares import Shares, shares_of
from bitwright.predictors.plans.gp_kernels import (
    Bend,
    Concentrated,
    Even,
    Factor,
    Likeness,
    Outlying,
    PairErrors,
    Power,
    PriceErrors,
    UnitErrors,
    amplitudes,
    one_hot,
    products,
)
from tests.predictors.random_plans import N_FORMATS, additive

PAIRS = np.array([[0, 1], [3, 7]])
EFFECTS: list[Effect] = [Factor(), Power(-2.0), Bend(), UnitErrors(), PriceErrors(N_FORMATS), Likeness(-2.0), PairErrors(PAIRS)]
SCATTERS: list[Scatter] = [Even(), Concentrated(), Outlying(-2.0)]


def some(n: int = 20) -> Shares:
    plans = additive(n, noise=0.0)
    return shares_of(plans.table, plans.choices)


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: type(effect).__name__)
def test_an_effect_is_a_covariance(effect: Effect) -> None:
    shares = some()
    covariance = effect.covariance(shares, shares)
    np.testing.assert_allclose(covariance, covariance.T)
    np.testing.assert_allclose(np.diag(covariance), effect.variance(shares), rtol=1e-6)
    assert np.linalg.eigvalsh(covariance).min() > -1e-8 * len(shares)
    np.testing.assert_allclose(effect.covariance(shares.only(slice(5)), shares), covariance[:5])


@pytest.mark.parametrize("scatter", SCATTERS, ids=lambda scatter: type(scatter).__name__)
def test_a_scatter_is_a_variance(scatter: Scatter) -> None:
    found = scatter.variance(some())
    assert found.shape == (20,)
    assert (found >= 0).all()


def drawn(of_error: np.ndarray, n: int = 40_000) -> np.ndarray:
    """The covariance `(n_plans, n_plans)` of what errors of deviation 1 do, by drawing them: `of_error` `(n_plans, n_errors)`."""
    moved = np.random.default_rng(0).standard_normal((n, of_error.shape[1])) @ of_error.T
    return np.cov(moved, rowvar=False)


def test_wrong_prices_move_the_logarithm_of_the_sum_by_their_share() -> None:
    plans = additive(6, noise=0.0)
    shares, small, rng = shares_of(plans.table, plans.choices), 1e-3, np.random.default_rng(1)
    for effect, shape in ((UnitErrors(), (len(plans.table), 1)), (PriceErrors(N_FORMATS), plans.table.shape)):
        moved = [
            (shares_of(plans.table * (1 + small * rng.standard_normal(shape)), plans.choices).log_sum - shares.log_sum) / small for _ in range(4000)
        ]
        np.testing.assert_allclose(np.cov(moved, rowvar=False), effect.covariance(shares, shares), atol=0.06 * effect.variance(shares).max())


def test_pairs_move_it_by_the_root_of_the_product() -> None:
    shares = some(6)
    np.testing.assert_allclose(products(shares, PAIRS)[:, 1], np.sqrt(shares.parts[:, 3] * shares.parts[:, 7]))
    np.testing.assert_allclose(PairErrors(PAIRS).covariance(shares, shares), drawn(products(shares, PAIRS)), atol=0.02)


def test_one_hot_shares_are_at_the_format_that_was_chosen() -> None:
    shares = some(6)
    spread = one_hot(shares, N_FORMATS).reshape(6, -1, N_FORMATS)
    np.testing.assert_array_equal(spread.sum(axis=2), shares.parts)
    np.testing.assert_array_equal(spread.argmax(axis=2), shares.choices)


def test_alike_plans_are_those_that_cost_alike_unit_by_unit() -> None:
    """One dear unit by one format is farther than one cheap unit by all; and formats are in order."""
    plans = additive(1, noise=0.0)
    dear, cheap = int(plans.table[:, 0].argmax()), int(plans.table[:, 0].argmin())
    start = np.full(len(plans.table), 1)

    def moved(unit: int, form: int) -> np.ndarray:
        other = start.copy()
        other[unit] = form
        return other

    shares = shares_of(plans.table, np.array([start, moved(dear, 2), moved(dear, 3), moved(cheap, 3)]))
    near = Likeness(float(shares.log_sum[0])).covariance(shares, shares)[0]
    assert near[0] == pytest.approx(1)
    assert near[3] > near[1] > near[2]


def test_amplitudes_are_roots_of_prices() -> None:
    plans = additive(6, noise=0.0)
    shares = shares_of(plans.table, plans.choices)
    prices = plans.table[np.arange(len(plans.table)), plans.choices]
    np.testing.assert_allclose(amplitudes(shares, np.log(4.0)), np.sqrt(prices) / 2)
