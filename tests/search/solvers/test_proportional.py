"""Proportional allocation: budgets met, proportions kept between the limits, and the shares of Edge-LLM and UniQL."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.errors import BudgetError, UserError
from bitwright.search import inverse_importance, proportional_reduction
from bitwright.search.solvers.proportional import proportional_allocation, softmax_shares
from bitwright.spaces import BlockFormat, Space, Tensor, Unit
from tests.search.instances import Table, budgets, instances, thorough


def fine_grained(n_weights: list[int], n_formats: int = 16) -> Space:
    """Formats of 1, 2, … bits per weight."""
    units = tuple(Unit(f"u{u}", u, "kind", (Tensor(f"u{u}", (n,), "F16"),)) for u, n in enumerate(n_weights))
    formats = tuple(BlockFormat(f"INT{b}", 32, 4 * b) for b in range(1, n_formats + 1))
    size_bits = np.array(n_weights)[:, None] * np.arange(1, n_formats + 1)
    return Space(units, formats, size_bits, np.ones(size_bits.shape, dtype=bool), 5, sum(n_weights))


@pytest.mark.slow
@pytest.mark.parametrize("share_out", [proportional_allocation, proportional_reduction])
@given(instance=instances(), share=st.floats(0.0, 1.0), data=st.data())
@thorough
def test_the_budget_is_never_exceeded_with_offered_pairs(share_out, instance: tuple[Space, Table], share: float, data: st.DataObject) -> None:
    space, budget_bits = instance[0], budgets(instance[0], share)
    shares = np.array([data.draw(st.floats(0.0, 10.0)) for _ in space.units])
    choice = share_out(space, shares, budget_bits)
    assert space.offered[np.arange(len(choice)), choice].all()
    assert space.total_bits(choice) <= budget_bits


def test_bits_are_in_proportion_and_the_budget_is_spent() -> None:
    space = fine_grained([32, 64, 32])
    choice = proportional_allocation(space, np.array([1.0, 2.0, 4.0]), 5 + 32 * 3 + 64 * 6 + 32 * 12)
    assert (choice + 1).tolist() == [3, 6, 12]


def test_what_a_limit_cuts_off_goes_to_the_others() -> None:
    space = fine_grained([32] * 3)
    choice = proportional_allocation(space, np.array([1.0, 1.0, 50.0]), 5 + 32 * (5 + 5 + 16))
    assert (choice + 1).tolist() == [5, 5, 16]


def test_bits_are_taken_in_proportion_down_to_the_smallest_format() -> None:
    space = fine_grained([32] * 3)
    assert (proportional_reduction(space, np.array([1.0, 2.0, 0.0]), 5 + 32 * (14 + 12 + 16)) + 1).tolist() == [14, 12, 16]
    assert (proportional_reduction(space, np.array([1.0, 9.0, 0.0]), 5 + 32 * (6 + 1 + 16)) + 1).tolist() == [6, 1, 16]


@pytest.mark.slow
@given(st.lists(st.integers(1, 20), min_size=2, max_size=6), st.floats(1.0, 16.0), st.data())
@thorough
def test_at_most_one_step_of_a_unit_is_left_unspent_and_larger_shares_get_no_fewer_bits(n: list[int], average: float, data: st.DataObject) -> None:
    space = fine_grained(n)
    shares = np.array([data.draw(st.floats(0.1, 10.0)) for _ in n])
    budget_bits = 5 + int(average * sum(n))
    choice = proportional_allocation(space, shares, budget_bits)
    if (choice < 15).all():
        assert budget_bits - space.total_bits(choice) < len(n) * max(n)
    assert all(choice[a] + 1 >= choice[b] for a in range(len(n)) for b in range(len(n)) if shares[a] > shares[b])


def test_the_remainders_decide_who_is_rounded_up() -> None:
    space = fine_grained([32] * 3)
    choice = proportional_allocation(space, np.array([2.2, 2.9, 2.9]), 5 + 32 * 8)
    assert (choice + 1).tolist() == [2, 3, 3]


def test_shares_of_the_systems() -> None:
    assert inverse_importance(np.array([1.0, 3.0, 2.0])).tolist() == [1.0, 0.0, 0.5]
    assert inverse_importance(np.ones(2)).tolist() == [1.0, 1.0]
    assert softmax_shares(np.array([0.0, 0.1 * np.log(3)]), temperature=0.1) == pytest.approx([0.25, 0.75])
    assert softmax_shares(np.array([1e6, 0.0]), temperature=0.1) == pytest.approx([1.0, 0.0])


def test_what_cannot_be_shared_out_is_refused() -> None:
    space = fine_grained([32] * 2)
    for share_out in (proportional_allocation, proportional_reduction):
        with pytest.raises(UserError, match="must not be negative, and the least is -1"):
            share_out(space, np.array([1.0, -1.0]), 1_000)
        with pytest.raises(UserError, match="score the units again"):
            share_out(space, np.ones(3), 1_000)
        with pytest.raises(BudgetError, match="smallest file"):
            share_out(space, np.ones(2), 60)
