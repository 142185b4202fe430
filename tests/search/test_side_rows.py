"""The knapsack with side constraints: the contract where there are none, brute force where there are."""

from math import fsum, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.errors import UserError
from bitwright.search import Row, Solution, solve_with_rows
from bitwright.spaces import Space

from .contract import ExactContract
from .instances import Table, budgets, every_choice, instances, language_model, losses, space_of


class TestWithoutRows(ExactContract):
    def solve(self, space: Space, table: Table, budget_bits: int) -> Solution:
        return solve_with_rows(space, table, budget_bits, rows=())


@st.composite
def constrained(draw: st.DrawFn) -> tuple[Space, Table, tuple[Row, ...]]:
    space, table = draw(instances())
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        cells = st.integers(-5, 5).map(lambda n: n / 10)  # tenths: sums that only a tolerance calls equal
        coefficients = np.array([[draw(cells) for _ in row] for row in space.offered])
        lower = draw(st.sampled_from([-inf, -0.5, 0.0, 0.3]))
        rows.append(Row(coefficients, lower, lower + draw(st.sampled_from([0.0, 0.4, inf])) if lower > -inf else draw(cells)))
    return space, table, tuple(rows)


@given(constrained(), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=300)
def test_rows_are_kept_at_the_least_loss(instance: tuple[Space, Table, tuple[Row, ...]], share: float) -> None:
    space, table, rows = instance
    budget_bits = budgets(space, share)
    choices = every_choice(space)
    allowed = (space.total_bits(choices) <= budget_bits) & [all(row.holds(choice) for row in rows) for choice in choices]
    if not allowed.any():
        with pytest.raises(UserError, match="The rows cannot all hold"):
            solve_with_rows(space, table, budget_bits, rows=rows)
        return
    solution = solve_with_rows(space, table, budget_bits, rows=rows)
    assert all(row.holds(solution.choice) for row in rows)
    assert solution.size_bits <= budget_bits
    assert solution.loss == pytest.approx(losses(table, choices[allowed]).min(), abs=1e-9)
    assert solution.gap <= 1e-9


def test_a_row_that_no_choice_keeps_is_named() -> None:
    space = space_of([[8, 16]], [[True, True]])
    rows = (Row(np.ones((1, 2)), 0.0, 1.0), Row(np.array([[1.0, 2.0]]), 3.0, inf))
    with pytest.raises(UserError, match="row 1 asks for a sum between 3 and inf, but its sums go from 1 to 2"):
        solve_with_rows(space, np.zeros((1, 2)), 100, rows=rows)


def test_rows_that_only_together_cannot_hold_are_refused() -> None:
    space = space_of([[8, 16]], [[True, True]])
    rows = (Row(np.array([[1.0, 2.0]]), 2.0, inf), Row(np.array([[1.0, 2.0]]), -inf, 1.0))
    with pytest.raises(UserError, match="cannot all hold within the budget"):
        solve_with_rows(space, np.zeros((1, 2)), 100, rows=rows)


@pytest.mark.parametrize("row", [Row(np.ones((2, 2)), 0.0, 1.0), Row(np.array([[1.0, np.nan]]), 0.0, 1.0)])
def test_a_row_that_does_not_fit_the_space_is_refused(row: Row) -> None:
    with pytest.raises(UserError, match="row 0 of shape"):
        solve_with_rows(space_of([[8, 16]], [[True, True]]), np.zeros((1, 2)), 100, rows=(row,))


def test_a_model_of_full_size_keeps_a_row_and_the_last_byte_of_the_budget() -> None:
    space, table = language_model(3, shape_aware=True)
    width = np.array([form.bits_per_weight for form in space.formats])
    first_block = np.zeros(space.offered.shape)
    first_block[1:8] = width  # the seven matrices of block 0 get 6 bits on average
    solution = solve_with_rows(space, table, 8 * 90_000_000, rows=(Row(first_block, 42.0, inf),))
    assert fsum(width[solution.choice[1:8]].tolist()) >= 42.0
    assert 8 * 89_900_000 < solution.size_bits <= 8 * 90_000_000
    assert solution.gap < 1e-9


def test_too_little_time_is_said() -> None:
    space, table = language_model(3, shape_aware=True)
    with pytest.raises(UserError, match="within 0 s, and none was"):
        solve_with_rows(space, table, 8 * 90_000_000, rows=(), limit_seconds=0.0)
