"""Spending: against a plain loop over the steps."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitwright.search.solvers.greedy_fill import affordable, choice_after


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20)), max_size=30), st.integers(0, 100))
def test_what_does_not_fit_is_passed_by_with_the_later_steps_of_its_unit(steps: list[tuple[int, int]], room_bits: int) -> None:
    unit, bits = np.array(steps, dtype=np.int64).reshape(-1, 2).T
    taken, closed, room = [], set(), room_bits
    for i, (u, b) in enumerate(steps):
        if u not in closed and b <= room:
            taken.append(i)
            room -= b
        else:
            closed.add(u)
    assert affordable(unit, bits, room_bits).tolist() == taken


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20)), max_size=30))
def test_the_last_step_of_a_unit_counts(steps: list[tuple[int, int]]) -> None:
    unit, option = np.array(steps, dtype=np.int64).reshape(-1, 2).T
    start = np.arange(100, 105)
    assert choice_after(start, unit, option).tolist() == [dict(steps).get(u, 100 + u) for u in range(5)]
    assert start.tolist() == [100, 101, 102, 103, 104]
