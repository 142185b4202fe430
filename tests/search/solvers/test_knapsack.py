"""The exact knapsack: the contract, its rule for ties, its bound when states are thinned, and a model of full size."""

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.search import Solution, hull, solve, solve_lagrangian, solve_with_rows
from bitwright.search.solvers import knapsack
from bitwright.spaces import Space
from bitwright.testing.solver_contract import ExactContract
from tests.search.instances import Table, budgets, channels, every_choice, instances, language_model, losses, space_of, thorough


class TestSolve(ExactContract):
    def solve(self, space: Space, table: Table, budget_bits: int) -> Solution:
        return solve(space, table, budget_bits)


@pytest.mark.slow
class TestSolveFromASmallCore(ExactContract):
    def solve(self, space: Space, table: Table, budget_bits: int) -> Solution:
        return from_a_small_core(space, table, budget_bits)


def from_a_small_core(space: Space, table: Table, budget_bits: int) -> Solution:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knapsack, "_CORE", 1)
        return solve(space, table, budget_bits)


@st.composite
def tied_instances(draw: st.DrawFn) -> tuple[Space, Table]:
    """Draw instances with few sizes and few losses, so that most choices have an equal."""
    n_units, n_formats = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    cells = st.lists(st.lists(st.integers(0, 2), min_size=n_formats, max_size=n_formats), min_size=n_units, max_size=n_units)
    space = space_of(draw(cells), [[True] * n_formats] * n_units)
    return space, np.array(draw(cells)) / 4


@pytest.mark.slow
@given(tied_instances(), st.floats(0.0, 1.0))
@thorough
def test_of_equals_takes_fewest_bits_then_the_lexicographically_first(instance: tuple[Space, Table], share: float) -> None:
    space, table = instance
    budget_bits = budgets(space, share)
    choices = every_choice(space)
    size = space.total_bits(choices)
    first = np.lexsort((np.arange(len(choices)), size, losses(table, choices) + np.where(size <= budget_bits, 0, np.inf)))[0]
    assert solve(space, table, budget_bits).choice.tolist() == choices[first].tolist()
    assert from_a_small_core(space, table, budget_bits).choice.tolist() == choices[first].tolist()


def test_a_tie_goes_to_the_first_unit_even_where_another_takes_its_turn_before() -> None:
    space = space_of([[0, 8, 8], [0, 8, 99]], [[True, True, False], [True, True, True]])
    assert solve(space, np.array([[0.25, 0.0, 0.0], [0.25, 0.0, -1.0]]), 8).choice.tolist() == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_where_sizes_barely_differ_a_thinned_search_owns_to_its_gap(seed: int) -> None:
    sizes = np.sort(np.random.default_rng(seed).integers(1, 10**6, (12, 4)), axis=1)
    space, table = space_of(sizes.tolist(), [[True] * 4] * 12), -sizes / 1e6  # a subset sum: every choice lies on the relaxation
    budget_bits = int(sizes.sum() * 0.27)
    exact, front = solve(space, table, budget_bits, n_states=10**6), hull(space, table)
    assert exact.gap == 0
    for n_states in (1, 5, 40):
        thinned = solve(space, table, budget_bits, n_states=n_states)
        assert thinned.lower_bound <= exact.loss <= thinned.loss <= front.loss[front.size_bits <= budget_bits][-1]
        assert thinned.gap > 0 or thinned.loss == exact.loss


@pytest.mark.slow
@given(instances(max_units=6), st.floats(0.0, 1.0), st.integers(1, 3))
@thorough
def test_a_thinned_search_still_brackets_the_best_loss(instance: tuple[Space, Table], share: float, n_states: int) -> None:
    space, table = instance
    budget_bits = budgets(space, share)
    solution = solve(space, table, budget_bits, n_states=n_states)
    choices = every_choice(space)
    best = losses(table, choices[space.total_bits(choices) <= budget_bits]).min()
    assert solution.lower_bound - 1e-9 <= best <= solution.loss + 1e-9
    assert solution.size_bits <= budget_bits


@given(instances(), st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6))
@settings(deadline=None)
def test_a_larger_budget_is_never_worse(instance: tuple[Space, Table], shares: list[float]) -> None:
    space, table = instance
    found = [solve(space, table, budgets(space, share)).loss for share in sorted(shares)]
    assert all(later <= earlier for earlier, later in pairwise(found))


@given(instances(), st.floats(0.0, 1.0), st.floats(-5.0, 5.0))
@settings(deadline=None)
def test_a_constant_per_unit_changes_no_more_than_the_loss(instance: tuple[Space, Table], share: float, constant: float) -> None:
    space, table = instance
    budget_bits = budgets(space, share)
    shifted = solve(space, table + constant, budget_bits)
    assert shifted.loss == pytest.approx(solve(space, table, budget_bits).loss + constant * len(space.units), abs=1e-7)


def test_an_absurd_loss_costs_the_others_no_digits() -> None:
    space = space_of([[8, 16, 24]] * 2, [[True] * 3] * 2)
    table = np.array([[1e30, 2e-9, 1e-9], [3e25, 4e-9, 1e-9]])
    assert solve(space, table, 40).choice.tolist() == [1, 2]


@pytest.mark.parametrize("shape_aware", [True, False])
@pytest.mark.parametrize("megabytes", [70, 85, 90, 91.77, 110])
def test_a_model_with_a_tied_embedding_is_solved_exactly_and_fast(megabytes: float, shape_aware: bool) -> None:
    space, table = language_model(1, shape_aware=shape_aware)
    budget_bits = int(8e6 * megabytes)
    began = time.perf_counter()
    solution = solve(space, table, budget_bits)
    assert time.perf_counter() - began < 2.0
    assert solution.gap == 0
    assert solution.size_bits <= budget_bits
    assert solution.loss == pytest.approx(solve_with_rows(space, table, budget_bits, rows=()).loss, rel=1e-9)


def test_many_equal_units_are_no_trap() -> None:
    space = space_of([[8, 16, 24, 40]] * 150, [[True] * 4] * 150)
    solution = solve(space, np.tile([1.0, 0.5, 0.25, 0.125], (150, 1)), 150 * 8 + 8 * 77 + 3)
    assert solution.gap == 0
    assert solution.choice.tolist() == sorted(solution.choice.tolist())


@pytest.mark.parametrize("seed", range(30))
def test_a_core_that_is_too_small_costs_nothing_but_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = np.array([2, 3, 4, 6])
    space = space_of((bits * rng.integers(20, 60, (14, 1))).tolist(), [[True] * 4] * 14)
    table = np.exp(rng.normal(0, 1, (14, 1))) * 4.0**-bits * np.exp(rng.normal(0, 0.3, (14, 4)))
    budget_bits = int(space.size_bits[:, 1:3].mean(axis=1).sum())
    assert from_a_small_core(space, table, budget_bits).choice.tolist() == solve(space, table, budget_bits).choice.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2.6, 4.2])
def test_twenty_thousand_smooth_units_are_solved_exactly_from_their_core(bits: float) -> None:
    rng, widths = np.random.default_rng(0), np.array([2, 3, 4, 5, 6, 8, 10, 16])
    n_weights = rng.choice([1024, 2752], 20_000)
    noisy, _ = channels(20_000, 0)
    space = replace(noisy, size_bits=n_weights[:, None] * widths, offered=np.ones((20_000, 8), dtype=bool), n_weights=int(n_weights.sum()))
    table = (np.sqrt(n_weights) * np.exp(rng.normal(0, 1, 20_000)))[:, None] * 4.0**-widths
    solution, relaxed = (strategy(space, table, int(bits * space.n_weights)) for strategy in (solve, solve_lagrangian))
    assert solution.gap == 0
    assert relaxed.lower_bound <= solution.loss <= relaxed.loss
    assert solution.n_nodes < 20_000  # of more than 10,000 options that exchanges leave open, the core rules out all but a hundred
