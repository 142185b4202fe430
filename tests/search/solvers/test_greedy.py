"""Greedy: the contract, a plain heap as reference, and convex tables, where it is the Lagrangian relaxation."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.search import Solution, demote, hull, promote, solve, solve_lagrangian
from bitwright.search.solvers import greedy
from bitwright.spaces import Space
from bitwright.testing.solver_contract import StrategyContract
from tests.search.instances import Table, budgets, channels, instances, space_of, thorough
from tests.search.solvers.test_relaxation import relaxed


class TestPromote(StrategyContract):
    def solve(self, space: Space, table: Table, budget_bits: int) -> Solution:
        return promote(space, table, budget_bits)


@pytest.mark.slow
class TestDemote(StrategyContract):
    def solve(self, space: Space, table: Table, budget_bits: int) -> Solution:
        return demote(space, table, budget_bits)


def chain(space: Space, table: Table, unit: int) -> list[int]:
    """The formats of a unit from the smallest up, each better than all before."""
    formats = sorted(np.flatnonzero(space.offered[unit]), key=lambda f: (space.size_bits[unit, f], table[unit, f]))
    return [f for i, f in enumerate(formats) if all(table[unit, f] < table[unit, g] for g in formats[:i])]


def marginal(space: Space, table: Table, unit: int, *, lower: int, upper: int) -> tuple[float, int]:
    bits = int(space.size_bits[unit, upper] - space.size_bits[unit, lower])
    return (table[unit, lower] - table[unit, upper]) / bits, bits


def heap_promoted(space: Space, table: Table, budget_bits: int) -> list[int]:
    chains = [chain(space, table, unit) for unit in range(len(space.units))]
    stand = [0] * len(chains)
    room = budget_bits - int(space.total_bits(np.array([c[0] for c in chains])))
    steps = [(-marginal(space, table, u, lower=c[0], upper=c[1])[0], u) for u, c in enumerate(chains) if len(c) > 1]
    heapq.heapify(steps)
    while steps:
        _, unit = heapq.heappop(steps)
        formats, k = chains[unit], stand[unit]
        bits = marginal(space, table, unit, lower=formats[k], upper=formats[k + 1])[1]
        if bits > room:
            continue
        stand[unit], room = k + 1, room - bits
        if k + 2 < len(formats):
            heapq.heappush(steps, (-marginal(space, table, unit, lower=formats[k + 1], upper=formats[k + 2])[0], unit))
    return [formats[k] for formats, k in zip(chains, stand, strict=True)]


def heap_demoted(space: Space, table: Table, budget_bits: int) -> list[int]:
    chains = [chain(space, table, unit) for unit in range(len(space.units))]
    stand = [len(c) - 1 for c in chains]
    over = int(space.total_bits(np.array([c[-1] for c in chains]))) - budget_bits
    steps = [(marginal(space, table, u, lower=c[-2], upper=c[-1])[0], u) for u, c in enumerate(chains) if len(c) > 1]
    heapq.heapify(steps)
    while over > 0:
        _, unit = heapq.heappop(steps)
        formats, k = chains[unit], stand[unit]
        stand[unit], over = k - 1, over - marginal(space, table, unit, lower=formats[k - 1], upper=formats[k])[1]
        if k >= 2:
            heapq.heappush(steps, (marginal(space, table, unit, lower=formats[k - 2], upper=formats[k - 1])[0], unit))
    return [formats[k] for formats, k in zip(chains, stand, strict=True)]


@pytest.mark.slow
@given(instances(), st.floats(0.0, 1.0))
@thorough
def test_the_sort_takes_what_a_heap_would_pop(instance: tuple[Space, Table], share: float) -> None:
    space, table = instance
    budget_bits = budgets(space, share)
    assert promote(space, table, budget_bits).choice.tolist() == heap_promoted(space, table, budget_bits)
    assert demote(space, table, budget_bits).choice.tolist() == heap_demoted(space, table, budget_bits)


def test_units_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    space, table = channels(300, 3)
    budget_bits = int(3.6 * space.n_weights)
    whole = [strategy(space, table, budget_bits).choice for strategy in (promote, demote)]
    monkeypatch.setattr(greedy, "_PART", 7)
    parts = [strategy(space, table, budget_bits).choice for strategy in (promote, demote)]
    assert np.array_equal(parts, whole)


@st.composite
def convex(draw: st.DrawFn) -> tuple[Space, Table]:
    """Sizes that grow and losses that fall ever less steeply, no two steps alike."""
    n_units, n_formats = draw(st.integers(1, 5)), draw(st.integers(2, 4))
    n_steps = n_units * (n_formats - 1)
    bits = np.array(draw(st.lists(st.integers(1, 50), min_size=n_steps, max_size=n_steps))).reshape(n_units, -1)
    slope = np.array(draw(st.lists(st.integers(1, 1000), min_size=n_steps, max_size=n_steps, unique=True))).reshape(n_units, -1) / 64
    saved = bits * -np.sort(-slope, axis=1)
    nothing = np.zeros((n_units, 1))
    size_bits = np.cumsum(np.column_stack((nothing, bits)), axis=1).astype(np.int64)
    return space_of(size_bits.tolist(), np.ones(size_bits.shape, dtype=bool).tolist()), -np.cumsum(np.column_stack((nothing, saved)), axis=1)


@pytest.mark.slow
@given(convex(), st.floats(0.0, 1.0))
@thorough
def test_on_convex_tables_greedy_is_the_lagrangian_and_within_a_step_of_the_best(instance: tuple[Space, Table], share: float) -> None:
    space, table = instance
    budget_bits = budgets(space, share)
    relaxation = relaxed(space, table, budget_bits)
    down, up = demote(space, table, budget_bits), promote(space, table, budget_bits)
    assert down.choice.tolist() == relaxation.rounded_down.tolist()
    best = solve(space, table, budget_bits).loss
    step = -np.diff(table, axis=1).min()  # the largest saving of one step of one unit
    for solution in (up, down, solve_lagrangian(space, table, budget_bits)):
        assert best - 1e-9 <= solution.loss <= down.loss
        assert solution.loss - best <= max(step - 1e-9, 0)


@pytest.mark.slow
@given(convex())
@settings(deadline=None)
def test_on_convex_tables_all_agree_at_the_corners_of_the_hull(instance: tuple[Space, Table]) -> None:
    space, table = instance
    front = hull(space, table)
    for choice, bits in zip(front.choices, front.size_bits, strict=True):
        for strategy in (promote, demote, solve_lagrangian, solve):
            assert strategy(space, table, int(bits)).choice.tolist() == choice.tolist()


def test_the_marginal_decides_and_not_the_whole_loss_of_the_lower_format() -> None:
    space = space_of([[2, 4, 8], [2, 4, 8]], [[True] * 3] * 2)
    table = np.array([[9.0, 8.0, 0.0], [9.5, 6.0, 5.0]])  # u1 has lost 6.0 at 4 bits: 1.75 more per bit saved, and not 4.75, is below 2 for u0
    solution = demote(space, table, 10)
    assert solution.choice.tolist() == [2, 0]
    assert solution.loss == 9.5


def test_a_step_that_does_not_fit_leaves_its_bits_to_others() -> None:
    space = space_of([[0, 100], [0, 10]], [[True] * 2] * 2)
    table = np.array([[500.0, 0.0], [1.0, 0.0]])
    assert promote(space, table, 50).choice.tolist() == [0, 1]
    assert demote(space, table, 50).choice.tolist() == [0, 0]
