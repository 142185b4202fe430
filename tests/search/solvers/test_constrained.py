"""The knapsack with side constraints: the contract where there are none, brute force where there are."""

from itertools import product
from math import fsum, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.search import Row, Solution, at_least, bits_between, solve, solve_with_rows
from bitwright.search.solvers.constrained import row_prices
from bitwright.search.solvers.constraints import at_most, layer_budgets, window
from bitwright.spaces import BlockFormat, Space, Tensor, Unit
from bitwright.testing.solver_contract import ExactContract
from tests.search.instances import Table, budgets, every_choice, instances, language_model, losses, space_of, thorough


@pytest.mark.slow
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


@pytest.mark.slow
@given(constrained(), st.floats(0.0, 1.0))
@thorough
def test_rows_are_kept_at_the_least_loss(instance: tuple[Space, Table, tuple[Row, ...]], share: float) -> None:
    space, table, rows = instance
    budget_bits = budgets(space, share)
    choices = every_choice(space)
    allowed = (space.total_bits(choices) <= budget_bits) & [all(row.holds(choice) for row in rows) for choice in choices]
    if not allowed.any():
        with pytest.raises(UserError, match="rows cannot all hold"):
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
    with pytest.raises(UserError, match="row 0 and row 1 contradict each other, whatever the budget"):
        solve_with_rows(space, np.zeros((1, 2)), 100, rows=rows)


@pytest.mark.parametrize("row", [Row(np.ones((2, 2)), 0.0, 1.0), Row(np.array([[1.0, np.nan]]), 0.0, 1.0)])
def test_a_row_that_does_not_fit_the_space_is_refused(row: Row) -> None:
    with pytest.raises(UserError, match="row 0 of shape"):
        solve_with_rows(space_of([[8, 16]], [[True, True]]), np.zeros((1, 2)), 100, rows=(row,))


@pytest.mark.slow
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
        solve_with_rows(space, table, 8 * 90_000_000, rows=(window(space, 0, 8 * 80_000_000),), limit_seconds=0.0)


def units_of(space: Space, layer: int) -> NDArray[np.bool_]:
    return np.array([unit.layer == layer for unit in space.units])


def test_the_two_rows_that_contradict_each_other_are_named_among_others() -> None:
    space = space_of([[8, 16]] * 4, [[True, True]] * 4)
    some, form = np.array([True, True, True, False]), space.formats[1]
    rows = (
        window(space, 0, 64),
        at_least(space, form, 3, units=some),
        at_least(space, form, 1, units=~some),
        at_most(space, form, 2, units=some),
        bits_between(space, 8, 16, units=~some),
    )
    expected = r"row 1 \(at least 3 of 3 units in F1\) and row 3 \(at most 2 of 3 units in F1\) contradict each other, whatever the budget"
    with pytest.raises(UserError, match=expected):
        solve_with_rows(space, np.zeros((4, 2)), 100, rows=rows)


def test_rows_that_ask_for_a_larger_file_than_the_budget_are_named() -> None:
    space = space_of([[8, 16]] * 4, [[True, True]] * 4)
    every = np.ones(4, dtype=bool)
    rows = (at_most(space, space.formats[1], 4, units=every), at_least(space, space.formats[1], 2, units=every))
    with pytest.raises(UserError, match=r"within the budget: row 1 \(at least 2 of 4 units in F1\) asks for a larger file"):
        solve_with_rows(space, np.zeros((4, 2)), 40, rows=rows)


def test_a_window_holds_to_the_bit() -> None:
    sizes = [[10**10 + 3 * unit, 2 * 10**10 + unit] for unit in range(6)]
    space = space_of(sizes, [[True, True]] * 6, fixed_bits=77)
    table = np.array([[float(unit), 0.0] for unit in range(6)])
    totals = np.sort(space.total_bits(every_choice(space)))
    lower, upper = int(totals[20]), int(totals[24])
    rows = (window(space, lower, upper),)
    solution = solve_with_rows(space, -table, upper, rows=rows)
    assert lower <= solution.size_bits <= upper
    choices = every_choice(space)
    inside = (space.total_bits(choices) >= lower) & (space.total_bits(choices) <= upper)
    assert solution.loss == losses(-table, choices[inside]).min()


def experts(seed: int) -> tuple[Space, Table]:
    """Three blocks of six experts at 1, 2 and 3 bits, with PMQ's objective of synthetic frequencies, weights and errors."""
    rng = np.random.default_rng(seed)
    units = tuple(Unit(f"{block}.{e}", block, "expert", (Tensor(f"{block}.{e}", (32,), "F16"),)) for block in range(3) for e in range(6))
    formats = tuple(BlockFormat(f"INT{b}", 32, 4 * b) for b in (1, 2, 3))
    frequency, weight = rng.dirichlet(np.ones(6), 3).ravel(), rng.dirichlet(np.ones(6), 3).ravel()
    error = rng.uniform(1, 2, (18, 1)) * 4.0 ** -np.arange(1, 4) * rng.uniform(0.5, 1.5, (18, 3))
    space = Space(units, formats, np.tile(32 * np.arange(1, 4), (18, 1)), np.ones((18, 3), dtype=bool), 0, 18 * 32)
    return space, frequency[:, None] * weight[:, None] ** 1.5 * error


@pytest.mark.parametrize("seed", range(3))
def test_pmq_per_block_is_brute_force_and_a_budget_for_all_is_no_worse(seed: int) -> None:
    space, table = experts(seed)
    at_2_and_3 = tuple(at_least(space, form, 1, units=units_of(space, block)) for block in range(3) for form in space.formats[1:])
    budget_bits = 18 * 32 * 2
    per_block = solve_with_rows(space, table, budget_bits, rows=(*at_2_and_3, *layer_budgets(space, 2.0)))
    best = 0.0
    for block in range(3):
        options = np.array(list(product(range(3), repeat=6)))  # 3^6
        kept = options[((options + 1).sum(axis=1) <= 12) & (options == 2).any(axis=1) & (options == 1).any(axis=1)]
        best += losses(table[units_of(space, block)], kept).min()
        mine = per_block.choice[units_of(space, block)]
        assert (mine + 1).sum() <= 12
        assert {1, 2} <= set(mine.tolist())
    assert per_block.loss == pytest.approx(best, rel=1e-9)
    together = solve_with_rows(space, table, budget_bits, rows=at_2_and_3)
    free = solve(space, table, budget_bits)
    assert free.loss <= together.loss <= per_block.loss
    assert solve_with_rows(space, table, budget_bits, rows=()).loss == pytest.approx(free.loss, rel=1e-9)


def test_an_equality_of_formats_is_a_unit_and_costs_what_the_row_would() -> None:
    tied = space_of([[16, 32], [8, 16]], [[True, True]] * 2)
    table = np.array([[5.0, 0.0], [3.0, 0.0]])  # the first is two tensors of the sizes below, losing 1 and 4
    apart = space_of([[8, 16], [8, 16], [8, 16]], [[True, True]] * 3)
    difference = np.zeros((3, 2))
    difference[0, 1], difference[1, 1] = 1.0, -1.0
    separate = np.array([[1.0, 0.0], [4.0, 0.0], [3.0, 0.0]])
    for budget_bits in (24, 32, 40, 48):
        with_row = solve_with_rows(apart, separate, budget_bits, rows=(Row(difference, 0.0, 0.0),))
        assert with_row.choice[0] == with_row.choice[1]
        assert with_row.loss == solve(tied, table, budget_bits).loss


@pytest.mark.slow
@given(instances(), st.floats(0.0, 1.0), st.floats(0.1, 1.0))
@thorough
def test_priced_rows_leave_the_least_loss_where_it_was(instance: tuple[Space, Table], share: float, tight: float) -> None:
    """The price of a row makes a bound: no choice that keeps it loses less than the knapsack of the priced table, less the price of the limit."""
    space, table = instance
    budget_bits = budgets(space, share)
    taken = np.random.default_rng(space.size_bits.sum()).uniform(1, 2, table.shape)
    least = float(np.where(space.offered, taken, inf).min(axis=1).sum())
    fast = solve(space, np.where(space.offered, taken, 0.0), budget_bits)
    upper = fast.loss + tight * (float(np.where(space.offered, taken, -inf).max(axis=1).sum()) - least)
    row = Row(taken, -inf, upper)
    prices = row_prices(space, table, budget_bits, rows=(row,))
    price = float((prices[space.offered] / (taken - np.where(space.offered, taken, inf).min(axis=1, keepdims=True))[space.offered].clip(1e-9)).max())
    assert (prices[space.offered] >= -1e-9).all()
    best = solve_with_rows(space, table, budget_bits, rows=(row,))
    bound = solve(space, table + np.where(space.offered, prices, 0.0), budget_bits).loss - price * (upper - least)
    assert bound <= best.loss + 1e-6
    assert (row_prices(space, table, budget_bits, rows=()) == 0).all()
