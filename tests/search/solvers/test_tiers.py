"""Tiers: the ratios as published, budgets kept to the last step, and importance never turned around."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwright.errors import BudgetError, UserError
from bitwright.search import tiered_within, two_tiers
from bitwright.search.solvers.tiers import tiered
from bitwright.spaces import BlockFormat, Space, Tensor, Unit
from tests.search.instances import thorough

BITS = (8, 4, 2)
FORMATS = tuple(BlockFormat(f"INT{b}", 32, 4 * b) for b in BITS)
CAMERA = (0.1, 0.3, 0.6)


def space_with(n_weights: list[int]) -> Space:
    units = tuple(Unit(f"u{u}", u, "kind", (Tensor(f"u{u}", (n,), "F16"),)) for u, n in enumerate(n_weights))
    size_bits = np.array(n_weights)[:, None] * np.array(BITS)
    return Space(units, FORMATS, size_bits, np.ones(size_bits.shape, dtype=bool), 7, sum(n_weights))


@st.composite
def ranked(draw: st.DrawFn) -> tuple[Space, NDArray[np.float64]]:
    n_weights = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    scores = draw(st.lists(st.integers(-3, 3).map(float), min_size=len(n_weights), max_size=len(n_weights)))
    return space_with(n_weights), np.array(scores)


def test_ten_micro_experts_get_the_bits_of_camera() -> None:
    scores = np.array([0.0, 9, 1, 8, 2, 7, 3, 6, 4, 5])
    choice = tiered(space_with([32] * 10), scores, formats=FORMATS, ratios=CAMERA)
    assert [BITS[format_index] for format_index in choice] == [2, 8, 2, 4, 2, 4, 2, 4, 2, 2]


def test_ratios_are_of_weights_and_the_middle_of_a_unit_decides() -> None:
    space = space_with([60, 20, 10, 10])
    assert tiered(space, np.array([4.0, 3, 2, 1]), formats=FORMATS, ratios=(0.29, 0.5, 0.21)).tolist() == [1, 1, 2, 2]
    assert tiered(space, np.array([4.0, 3, 2, 1]), formats=FORMATS, ratios=(0.31, 0.5, 0.19)).tolist() == [0, 1, 2, 2]
    assert tiered(space, np.array([4.0, 3, 2, 1]), formats=FORMATS, ratios=(0.3, 0.5, 0.2)).tolist() == [1, 1, 2, 2]  # at the very end


@pytest.mark.slow
@given(ranked(), st.floats(0.0, 1.2))
@thorough
def test_the_budget_is_kept_and_no_more_important_unit_is_coarser(instance: tuple[Space, NDArray[np.float64]], share: float) -> None:
    space, scores = instance
    smallest, largest = (int(space.total_bits(choice)) for choice in (space.smallest(), space.largest()))
    budget_bits = smallest + int(share * (largest - smallest))
    choice = tiered_within(space, scores, budget_bits, formats=FORMATS, ratios=CAMERA)
    assert space.total_bits(choice) <= budget_bits
    assert all(choice[a] <= choice[b] for a in range(len(scores)) for b in range(len(scores)) if scores[a] > scores[b])
    if share >= 1:
        assert (choice == 0).all()


@pytest.mark.slow
@given(ranked(), st.floats(0.0, 1.0))
@thorough
def test_two_tiers_lower_the_fewest_of_the_least_important(instance: tuple[Space, NDArray[np.float64]], share: float) -> None:
    space, scores = instance
    smallest, largest = (int(space.total_bits(choice)) for choice in (space.smallest(), space.largest()))
    budget_bits = smallest + int(share * (largest - smallest))
    choice = two_tiers(space, scores, budget_bits, high=FORMATS[0], low=FORMATS[2])
    order = np.argsort(-scores, kind="stable")
    n_high = int((choice == 0).sum())
    assert (choice[order[:n_high]] == 0).all()
    assert (choice[order[n_high:]] == 2).all()
    if n_high < len(order):
        one_more = choice.copy()
        one_more[order[n_high]] = 0
        assert space.total_bits(one_more) > budget_bits


def test_at_the_size_of_the_published_ratios_the_factor_is_one() -> None:
    space, scores = space_with([32] * 20), np.arange(20.0)
    published = tiered(space, scores, formats=FORMATS, ratios=CAMERA)
    assert (tiered_within(space, scores, int(space.total_bits(published)), formats=FORMATS, ratios=CAMERA) == published).all()


def test_a_single_tier_and_an_empty_one() -> None:
    space, scores = space_with([32] * 3), np.zeros(3)
    assert tiered_within(space, scores, 10**6, formats=FORMATS[1:2], ratios=(1.0,)).tolist() == [1, 1, 1]
    assert tiered_within(space, scores, 10**6, formats=FORMATS, ratios=(0.5, 0.0, 0.5)).tolist() == [0, 0, 0]
    assert tiered_within(space, scores, 10**6, formats=FORMATS, ratios=(0.0, 0.5, 0.5)).tolist() == [1, 1, 1]


def test_a_unit_that_is_not_offered_the_format_of_its_tier_gets_the_next_finer() -> None:
    space = space_with([32] * 2)
    space = space.narrowed(np.array([[True, True, True], [True, True, False]]))
    assert two_tiers(space, np.zeros(2), 10**6, high=FORMATS[0], low=FORMATS[2]).tolist() == [0, 0]
    assert tiered(space, np.zeros(2), formats=FORMATS[2:], ratios=(1.0,)).tolist() == [2, 1]


def test_what_is_no_tier_is_refused() -> None:
    space, scores = space_with([32] * 2), np.zeros(2)
    with pytest.raises(BudgetError, match=r"coarsest tier, INT2, 16 bytes, but it is 2: raise it"):
        tiered_within(space, scores, 20, formats=FORMATS, ratios=CAMERA)
    with pytest.raises(UserError, match="finest format to the coarsest"):
        tiered(space, scores, formats=FORMATS[::-1], ratios=CAMERA)
    for ratios in [(0.5, 0.5), (0.5, 0.6, -0.1), (0.5, 0.5, 0.5)]:
        with pytest.raises(UserError, match="sum to one"):
            tiered(space, scores, formats=FORMATS, ratios=ratios)
    with pytest.raises(UserError, match="score the units again"):
        tiered(space, np.zeros(3), formats=FORMATS, ratios=CAMERA)
