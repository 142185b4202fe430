"""Rows by name: each holds for the choices that it describes."""

from math import inf

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitwright.search import Row, at_least, bits_between
from bitwright.search.solvers.constraints import at_most, layer_budgets, whole, window
from bitwright.spaces import Space
from tests.search.instances import Table, every_choice, instances, space_of, thorough


@given(instances(), st.integers(0, 5), st.data())
@thorough
def test_a_row_holds_for_what_it_describes(instance: tuple[Space, Table], n: int, data: st.DataObject) -> None:
    space = instance[0]
    units = np.array([data.draw(st.booleans()) for _ in space.units])
    index = data.draw(st.integers(0, len(space.formats) - 1))
    form = space.formats[index]
    choices = every_choice(space)[:200]
    counts = (choices[:, units] == index).sum(axis=1)
    bits = space.size_bits[np.arange(len(units)), choices][:, units].sum(axis=1)
    totals = space.total_bits(choices)
    lower, upper = sorted((data.draw(st.sampled_from(totals.tolist())), data.draw(st.sampled_from(totals.tolist()))))
    assert [at_least(space, form, n, units=units).holds(choice) for choice in choices] == (counts >= n).tolist()
    assert [at_most(space, form, n, units=units).holds(choice) for choice in choices] == (counts <= n).tolist()
    assert [window(space, lower, upper).holds(choice) for choice in choices] == ((totals >= lower) & (totals <= upper)).tolist()
    assert [bits_between(space, 0, upper, units=units).holds(choice) for choice in choices] == (bits <= upper).tolist()


def test_each_layer_has_its_budget() -> None:
    space = space_of([[64, 128], [32, 64], [32, 64]], [[True, True]] * 3)  # u0 of 64 weights, u1 and u2 of 32, each a layer of its own
    rows = layer_budgets(space, 1.5)
    assert [row.upper for row in rows] == [96.0, 48.0, 48.0]
    assert [row.holds(np.array([0, 1, 0])) for row in rows] == [True, False, True]
    assert [row.name for row in rows] == [f"layer {layer} takes at most {bits} bits" for layer, bits in enumerate([96, 48, 48])]


def test_whole_numbers_are_held_to_the_last_one_and_others_up_to_rounding() -> None:
    row = Row(np.array([[1e15 + 1, 0.0], [1e15, 0.0]]), -inf, 2e15)
    assert not row.holds(np.array([0, 0]))
    tenths = Row(np.array([[0.1, 0.0], [0.2, 0.0]]), -inf, 0.3)
    assert tenths.holds(np.array([0, 0]))
    assert not Row(tenths.coefficients, -inf, 0.2999).holds(np.array([0, 0]))


def test_what_no_float_counts_exactly_is_not_whole() -> None:
    assert whole(np.array([1.0, -3.0, 0.0]))
    assert not whole(np.array([0.5, 1.0]))
    assert not whole(np.array([2.0**53, 1.0]))
