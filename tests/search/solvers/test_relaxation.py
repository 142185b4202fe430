"""The relaxation at one budget: its gap bounds every choice, and what it rounds down to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.search.solvers.instance import checked_table, extra_bits, room_bits
from bitwright.search.solvers.relaxation import Relaxation, relax
from bitwright.spaces import Space
from tests.search.instances import Table, budgets, every_choice, instances, losses, space_of, thorough


def relaxed(space: Space, table: Table, budget_bits: int) -> Relaxation:
    return relax(extra_bits(space), checked_table(space, table), space.offered, room_bits=room_bits(space, budget_bits))


@pytest.mark.slow
@given(instances(), st.floats(0.0, 1.0))
@thorough
def test_no_loss_is_further_from_the_best_than_its_gap(instance: tuple[Space, Table], share: float) -> None:
    space, table = instance
    budget_bits = budgets(space, share)
    relaxation = relaxed(space, table, budget_bits)
    choices = every_choice(space)
    choices = choices[space.total_bits(choices) <= budget_bits]
    loss = losses(table, choices)
    assert all(relaxation.gap(choice) >= own - loss.min() - 1e-9 for choice, own in zip(choices, loss, strict=True))


@pytest.mark.slow
@given(instances(), st.floats(0.0, 1.0))
@thorough
def test_rounded_down_it_fits_at_no_reduced_cost(instance: tuple[Space, Table], share: float) -> None:
    space, table = instance
    relaxation = relaxed(space, table, budgets(space, share))
    choice = relaxation.rounded_down
    assert space.total_bits(choice) <= budgets(space, share)
    assert relaxation.gap(choice) == pytest.approx(relaxation.price * relaxation.unspent_bits(choice), abs=1e-9)
    assert (relaxation.reduced[space.offered] >= 0).all()
    assert np.isinf(relaxation.reduced[~space.offered]).all()


def test_where_everything_fits_bits_are_free() -> None:
    space = space_of([[8, 16, 24]] * 2, [[True] * 3] * 2)
    relaxation = relaxed(space, np.array([[3.0, 1.0, 2.0], [3.0, 2.0, 0.0]]), 1_000)
    assert relaxation.price == 0
    assert relaxation.rounded_down.tolist() == [1, 2]
    assert relaxation.gap(relaxation.rounded_down) == 0


def test_the_price_is_that_of_the_first_step_that_does_not_fit() -> None:
    space = space_of([[0, 8]] * 3, [[True] * 2] * 3)
    relaxation = relaxed(space, np.array([[8.0, 0.0], [4.0, 0.0], [2.0, 0.0]]), 15)
    assert relaxation.room_bits == 8  # all sizes are multiples of eight: the other seven bits buy nothing
    assert relaxation.price == 0.5
    assert relaxation.rounded_down.tolist() == [1, 0, 0]
    assert relaxation.gap(relaxation.rounded_down) == 0
