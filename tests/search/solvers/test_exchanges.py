"""Exchanges: against brute force over one and two moves, and where only a pair or an option off the hull helps."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.search.solvers import exchanges
from bitwright.search.solvers.exchanges import exchanged
from bitwright.spaces import Choice, Space
from tests.search.instances import Table, budgets, channels, instances, losses, space_of, thorough
from tests.search.solvers.test_relaxation import relaxed


def after(space: Space, table: Table, budget_bits: int) -> Choice:
    return exchanged(relaxed(space, table, budget_bits))[0]


@pytest.mark.slow
@given(instances(), st.floats(0.0, 1.0))
@thorough
def test_never_worse_than_before_and_within_the_room(instance: tuple[Space, Table], share: float) -> None:
    space, table = instance
    relaxation = relaxed(space, table, budgets(space, share))
    choice, n_moves = exchanged(relaxation)
    assert space.offered[np.arange(len(choice)), choice].all()
    assert space.total_bits(choice) <= budgets(space, share)
    assert losses(table, choice[None])[0] <= losses(table, relaxation.rounded_down[None])[0]
    assert n_moves >= 0


@pytest.mark.slow
@given(instances(max_units=6, max_formats=2), st.floats(0.0, 1.0))
@thorough
def test_no_one_or_two_moves_are_left_that_would_gain_a_thousandth_of_the_gap(instance: tuple[Space, Table], share: float) -> None:
    space, table = instance
    budget_bits = budgets(space, share)
    relaxation = relaxed(space, table, budget_bits)
    choice, _ = exchanged(relaxation)
    movable = np.flatnonzero(space.offered.sum(axis=1) == 2)
    for units in [*combinations(movable, 1), *combinations(movable, 2)]:
        moved = choice.copy()
        moved[list(units)] = 1 - moved[list(units)]
        if space.total_bits(moved) <= budget_bits:
            assert losses(table, moved[None])[0] >= losses(table, choice[None])[0] - 1e-3 * relaxation.gap(choice) - 1e-12


def test_an_option_off_the_hull_is_taken_where_the_hull_step_does_not_fit() -> None:
    space = space_of([[0, 8, 24]], [[True] * 3])
    assert after(space, np.array([[9.0, 8.0, 0.0]]), 16).tolist() == [1]


def test_one_unit_steps_down_for_another_that_needs_its_bits() -> None:
    space = space_of([[0, 10], [0, 16]], [[True] * 2] * 2)
    table = np.array([[10.0, 0.0], [15.0, 0.0]])
    assert relaxed(space, table, 16).rounded_down.tolist() == [1, 0]
    assert after(space, table, 16).tolist() == [0, 1]


def test_the_cheapest_moves_are_enough_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    space, table = channels(5_000, 1)
    monkeypatch.setattr(exchanges, "_AT_ONCE", 100)
    relaxation = relaxed(space, table, int(3.7 * space.n_weights))
    choice, n_moves = exchanged(relaxation)
    assert relaxation.gap(choice) < relaxation.gap(relaxation.rounded_down) / 10
    assert n_moves < 500  # about two hundred with where their units stand, and ever fewer after an exchange
