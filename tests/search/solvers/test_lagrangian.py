"""The Lagrangian relaxation: the contract, its gap against the exact optimum, and many units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.search import Solution, hull, solve, solve_lagrangian, spread
from bitwright.spaces import Space
from bitwright.testing.solver_contract import StrategyContract
from tests.search.instances import Table, budgets, channels, instances, language_model, thorough


@pytest.mark.slow
class TestLagrangian(StrategyContract):
    def solve(self, space: Space, table: Table, budget_bits: int) -> Solution:
        return solve_lagrangian(space, table, budget_bits)


@pytest.mark.slow
@given(instances(), st.floats(0.0, 1.0))
@thorough
def test_no_worse_than_the_corner_of_the_hull_below_the_budget(instance: tuple[Space, Table], share: float) -> None:
    space, table = instance
    front = hull(space, table)
    corner = front.loss[front.size_bits <= budgets(space, share)][-1]
    assert solve_lagrangian(space, table, budgets(space, share)).loss <= corner + 1e-12


def test_at_the_corners_of_the_hull_nothing_is_left_to_prove() -> None:
    space, table = language_model(2, shape_aware=True)
    front = hull(space, table)
    for point in spread(front, 12):
        solution = solve_lagrangian(space, table, int(front.size_bits[point]))
        assert solution.loss == pytest.approx(front.loss[point], rel=1e-12)
        assert solution.gap <= 1e-12 * solution.loss


@pytest.mark.parametrize("bits", [4.2, 4.6, 5.0, 6.0, 7.0])
def test_between_the_corners_of_few_unequal_units_the_gap_is_honest(bits: float) -> None:
    space, table = language_model(1, shape_aware=False)
    budget_bits = int(bits * space.n_weights)
    exact, relaxed = solve(space, table, budget_bits), solve_lagrangian(space, table, budget_bits)
    assert relaxed.lower_bound <= exact.loss <= relaxed.loss <= 1.03 * exact.loss


@pytest.mark.parametrize("bits", [2.6, 3.5, 6.1])
def test_many_units_leave_a_gap_below_a_hundred_thousandth(bits: float) -> None:
    space, table = channels(20_000, 0)
    solution = solve_lagrangian(space, table, int(bits * space.n_weights))
    assert solution.size_bits <= int(bits * space.n_weights)
    assert solution.gap < 1e-5 * solution.loss
