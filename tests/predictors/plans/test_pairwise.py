from dataclasses import replace

import numpy as np
import pytest

from bitwright.predictors.plans.additive_gp import fit_posterior_to_values
from bitwright.predictors.plans.cost_shares import cost_shares
from bitwright.predictors.plans.pairwise import PairwisePredictor, _most_supported, following
from bitwright.predictors.plans.predictor import Predictor
from bitwright.predictors.plans.ridge import RidgePredictor, price_error_prior
from bitwright.testing.predictor_contract import LearningContract, held_out
from bitwright.testing.random_plans import Plans, additive

NO_PAIRS = np.zeros((0, 2), dtype=np.int64)


class TestPairwisePredictor(LearningContract):
    needed = 0

    def predictor(self, table: np.ndarray) -> Predictor:
        return PairwisePredictor(table, following(len(table)))


def with_pair(plans: Plans, u: int, v: int, phi: float) -> Plans:
    """The errors of two units add up: 2 φ √(t_u t_v) more."""
    prices = plans.table[np.arange(len(plans.table)), plans.choices]
    truth = 0.7 * (prices.sum(axis=1) + 2 * phi * np.sqrt(prices[:, u] * prices[:, v]))
    return replace(plans, truth=truth, values=truth, errors=0.01 * truth)


@pytest.fixture
def paired() -> tuple[Plans, list[int]]:
    """The two dearest units that do not follow each other interact."""
    plans = additive(160, noise=0.0)
    dearest = np.argsort(-plans.table.sum(axis=1))
    u = int(dearest[0])
    v = next(int(other) for other in dearest[1:] if abs(other - u) > 1)
    return with_pair(plans, u, v, 0.8), sorted((u, v))


def test_a_pair_that_the_measurements_support_is_found(paired: tuple[Plans, list[int]]) -> None:
    plans, pair = paired
    known = plans.part(slice(100))
    shares = cost_shares(plans.table, known.choices)
    found, size = _most_supported(fit_posterior_to_values(price_error_prior(shares, 4), shares, known.values, known.errors), following(12))
    assert found.tolist() == [pair]
    assert 0.1 < size < 3
    other, _ = _most_supported(fit_posterior_to_values(price_error_prior(shares, 4), shares, known.values, known.errors), np.array([pair[::-1]]))
    assert other.tolist() != [pair]  # it is taken


def test_a_pair_is_learnt(paired: tuple[Plans, list[int]]) -> None:
    plans, _ = paired
    alone, pairs = (held_out(predictor, plans, 100) for predictor in (RidgePredictor(plans.table), PairwisePredictor(plans.table, following(12))))
    assert pairs.root_mean_square < 0.7 * alone.root_mean_square


def test_neighbours_that_interact_are_learnt_together() -> None:
    plans = additive(160, noise=0.0)
    roots = np.sqrt(plans.table[np.arange(len(plans.table)), plans.choices])
    truth = (roots**2).sum(axis=1) + 2 * (roots[:, :-1] * roots[:, 1:]) @ np.random.default_rng(0).normal(0, 0.4, 11)
    plans = replace(plans, truth=truth, values=truth, errors=0.01 * truth)
    alone, told = (held_out(PairwisePredictor(plans.table, neighbours), plans, 60) for neighbours in (NO_PAIRS, following(12)))
    assert told.root_mean_square < 0.8 * alone.root_mean_square


def test_where_nothing_interacts_no_pair_is_picked() -> None:
    picked = 0
    for seed in range(10):
        plans = additive(60, noise=0.05, seed=seed)
        shares = cost_shares(plans.table, plans.choices)
        picked += len(_most_supported(fit_posterior_to_values(price_error_prior(shares, 4), shares, plans.values, plans.errors), NO_PAIRS)[0])
    assert picked <= 2


def test_without_pairs_it_is_ridge() -> None:
    plans = additive(60, noise=0.05)
    found, ridge = (p.fit(*plans.known())(plans.choices) for p in (PairwisePredictor(plans.table, NO_PAIRS), RidgePredictor(plans.table)))
    np.testing.assert_array_equal(found, ridge)


def test_each_unit_and_the_one_after_it() -> None:
    assert following(3).tolist() == [[0, 1], [1, 2]]
    assert following(1).shape == (0, 2)
