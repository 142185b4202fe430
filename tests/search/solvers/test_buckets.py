"""The knapsack in buckets: the contract, exact where nothing is rounded, and what rounding costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.search import Solution, solve, solve_in_buckets
from bitwright.spaces import Space
from bitwright.testing.solver_contract import StrategyContract
from tests.search.instances import Table, budgets, instances, language_model, space_of, thorough


@pytest.mark.slow
class TestBuckets(StrategyContract):
    def solve(self, space: Space, table: Table, budget_bits: int) -> Solution:
        return solve_in_buckets(space, table, budget_bits)


@pytest.mark.slow
@given(instances(), st.floats(0.0, 1.0))
@thorough
def test_where_a_bucket_is_a_bit_the_best_choice_is_found(instance: tuple[Space, Table], share: float) -> None:
    space, table = instance
    budget_bits = budgets(space, share)
    if budget_bits - space.total_bits(space.smallest()) <= 10_000:
        assert solve_in_buckets(space, table, budget_bits).loss == pytest.approx(solve(space, table, budget_bits).loss, abs=1e-9)


def test_rounding_up_keeps_the_budget_where_the_nearest_bucket_would_not() -> None:
    space = space_of([[0, 14]] * 10, [[True] * 2] * 10)
    table = np.array([[1.0, 0.0]] * 10)
    solution = solve_in_buckets(space, table, 100, n_buckets=10)  # buckets of ten bits: 14 would be one by the nearest, and ten would fit
    assert solution.choice.sum() == 5
    assert solution.lower_bound <= solve(space, table, 100).loss == 3.0


@pytest.mark.parametrize("bits", [4.2, 5.0, 6.0])
def test_on_a_model_ten_thousand_buckets_lose_little_and_the_gap_says_so(bits: float) -> None:
    space, table = language_model(1, shape_aware=True)
    budget_bits = int(bits * space.n_weights)
    exact, rounded = solve(space, table, budget_bits), solve_in_buckets(space, table, budget_bits)
    assert rounded.size_bits <= budget_bits
    assert rounded.lower_bound <= exact.loss <= rounded.loss <= 1.02 * exact.loss
