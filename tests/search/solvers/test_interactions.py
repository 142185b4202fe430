"""The knapsack with interactions: the contract where there are none, brute force where there are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.errors import UserError
from bitwright.search import Solution, solve
from bitwright.search.solvers.interactions import Interactions, solve_interacting
from bitwright.search.solvers.milp import Answer, Programme
from bitwright.spaces import Space
from tests.search.contract import ExactContract
from tests.search.instances import Table, budgets, every_choice, instances, losses, space_of

NONE = Interactions(np.zeros((0, 2), dtype=np.int64), np.zeros((0, 2), dtype=np.int64), np.zeros(0))


class TestWithoutInteractions(ExactContract):
    def solve(self, space: Space, table: Table, budget_bits: int) -> Solution:
        return solve_interacting(space, table, budget_bits, interactions=NONE)


def test_what_is_not_proven_in_time_is_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of([[8, 16]], [[True, True]])
    monkeypatch.setattr(Programme, "solve", lambda programme, limit_seconds: Answer(np.array([1]), 0.75, 0.5, 3))
    solution = solve_interacting(space, np.array([[5.0, 4.0]]), 16, interactions=NONE)
    assert (solution.loss, solution.lower_bound, solution.gap, solution.n_nodes) == (4.0, 3.75, 0.25, 3)


@st.composite
def interacting(draw: st.DrawFn) -> tuple[Space, Table, Interactions]:
    space, table = draw(instances())
    pairs = np.argwhere(space.offered)
    of_two = [(i, j) for i in range(len(pairs)) for j in range(i) if pairs[i, 0] != pairs[j, 0]]
    chosen = draw(st.lists(st.sampled_from(of_two), max_size=8)) if of_two else []
    loss = np.array([draw(st.integers(-20, 20)) / 4 for _ in chosen])
    index = np.array(chosen, dtype=np.int64).reshape(-1, 2)
    return space, table, Interactions(pairs[index[:, 0]], pairs[index[:, 1]], loss)


@given(interacting(), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=300)
def test_the_best_choice_is_found(instance: tuple[Space, Table, Interactions], share: float) -> None:
    space, table, interactions = instance
    budget_bits = budgets(space, share)
    choices = every_choice(space)
    choices = choices[space.total_bits(choices) <= budget_bits]
    totals = losses(table, choices) + [interactions.total(choice) for choice in choices]
    solution = solve_interacting(space, table, budget_bits, interactions=interactions)
    assert solution.size_bits == space.total_bits(solution.choice) <= budget_bits
    assert solution.loss == pytest.approx(totals.min(), abs=1e-9)
    assert solution.loss == pytest.approx(losses(table, solution.choice[None])[0] + interactions.total(solution.choice), abs=1e-9)
    assert solution.lower_bound <= totals.min() + 1e-9
    assert 0 <= solution.gap <= 1e-9


def test_what_is_no_interaction_is_refused() -> None:
    space = space_of([[16, 8]] * 2, [[True, True], [True, False]])
    one, table = np.array([[0, 0]]), np.zeros((2, 2))
    for second, loss, sentence in [
        ([[0, 1]], [1.0], "two different units"),
        ([[1, 1]], [1.0], "between offered pairs"),
        ([[1, 0]], [np.nan], "between offered pairs"),
        ([[1, 0]], [1.0, 2.0], "two different units"),
    ]:
        with pytest.raises(UserError, match=sentence):
            solve_interacting(space, table, 100, interactions=Interactions(one, np.array(second), np.array(loss)))


def test_neighbours_that_hurt_together_are_not_lowered_together() -> None:
    space = space_of([[16, 8]] * 4, [[True, True]] * 4)
    table = np.array([[0.0, 1.0], [0.0, 1.1], [0.0, 1.2], [0.0, 1.3]])
    first, second = np.array([[0, 1]]), np.array([[1, 1]])
    assert solve_interacting(space, table, 48, interactions=NONE).choice.tolist() == [1, 1, 0, 0]
    assert solve_interacting(space, table, 48, interactions=Interactions(first, second, np.array([1.0]))).choice.tolist() == [1, 0, 1, 0]


def test_what_two_save_together_is_taken_together() -> None:
    space = space_of([[8, 16]] * 3, [[True, True]] * 3)
    table = np.array([[1.0, 0.0], [1.0, 0.0], [1.5, 0.0]])
    saved = Interactions(np.array([[0, 1]]), np.array([[1, 1]]), np.array([-1.0]))
    assert solve_interacting(space, table, 40, interactions=NONE).choice[2] == 1
    assert solve_interacting(space, table, 40, interactions=saved).choice.tolist() == [1, 1, 0]


def test_thirty_neighbours_may_interact_in_all_their_formats() -> None:
    rng = np.random.default_rng(0)
    bits = np.array([2, 3, 4, 6])
    space = space_of((bits * rng.choice([1, 2, 3], (30, 1))).tolist(), [[True] * 4] * 30)
    table = np.exp(rng.normal(0, 1, (30, 1))) * 4.0**-bits
    first = np.array([(unit, a) for unit in range(29) for a in range(4) for _ in range(4)])
    second = np.array([(unit + 1, b) for unit in range(29) for _ in range(4) for b in range(4)])
    loss = np.repeat(rng.normal(size=29), 16) * np.sqrt(table[tuple(first.T)] * table[tuple(second.T)])
    budget_bits = int(space.size_bits[:, 1:3].mean(axis=1).sum())
    solution = solve_interacting(space, table, budget_bits, interactions=Interactions(first, second, loss))
    assert solution.gap <= 1e-9
    additive = solve(space, table, budget_bits).choice
    assert solution.loss < losses(table, additive[None])[0] + Interactions(first, second, loss).total(additive)
