"""Exchanges of bits: they keep the budget and the bits of equal units, and none is left out."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.errors import BudgetError
from bitwright.search.solvers.format_ranks import FormatRanks
from bitwright.search.strategies.neighbours import Neighbourhood, all_together, by_kind, by_size
from bitwright.spaces import Choice, Space
from bitwright.testing.strategy_contract import LARGE
from tests.search.instances import budgets, every_choice, instances, space_of

pytestmark = pytest.mark.slow


@st.composite
def places(draw: st.DrawFn) -> tuple[Space, int, Choice]:
    """A space, a budget, and a choice within it."""
    space, _ = draw(instances())
    budget_bits = budgets(space, draw(st.floats(0.0, 1.0)))
    choices = every_choice(space)
    fits = choices[space.total_bits(choices) <= budget_bits]
    return space, budget_bits, fits[draw(st.integers(0, len(fits) - 1))]


@given(places(), st.integers(0, 2**32))
@settings(deadline=None)
def test_what_is_near_is_offered_and_within_the_budget(place: tuple[Space, int, Choice], seed: int) -> None:
    space, budget_bits, choice = place
    rng = np.random.default_rng(seed)
    for groups in (all_together, by_size, by_kind):
        near = Neighbourhood(space, budget_bits, groups)
        found = np.concatenate([near.swaps(choice, n_at_most=1_000, rng=rng), near.mutated(choice, rng)[None], near.walked(choice, 5, rng)[None]])
        assert space.offered[np.arange(len(choice)), found].all()
        assert (space.total_bits(found) <= budget_bits).all()


@given(places())
@settings(deadline=None)
def test_every_exchange_between_two_units_is_among_the_swaps(place: tuple[Space, int, Choice]) -> None:
    space, budget_bits, choice = place
    format_ranks = FormatRanks(space)
    ranks, found = (
        format_ranks.ranks(choice),
        Neighbourhood(space, budget_bits, all_together).swaps(choice, n_at_most=10**6, rng=np.random.default_rng(0)),
    )
    keys = {row.tobytes() for row in found}
    assert choice.tobytes() not in keys
    assert len(keys) == len(found)
    for up, down in product(range(len(choice)), repeat=2):
        if up != down and ranks[up] < format_ranks.top[up] and ranks[down] > 0:
            after = ranks.copy()
            after[up] += 1
            while format_ranks.spent(after) > budget_bits - space.total_bits(space.smallest()) and after[down] > 0:
                after[down] -= 1
            fits = space.total_bits(format_ranks.choices(after)) <= budget_bits
            assert not fits or format_ranks.choices(after).tobytes() in keys


def test_a_level_of_a_large_unit_buys_several_of_a_small_one() -> None:
    space = space_of([[0, 100], [0, 30]], [[True, True], [True, True]])
    three = space_of([[0, 100, 100], [0, 30, 60]], [[True, True, False], [True] * 3])
    rng = np.random.default_rng(0)
    assert [0, 1] in Neighbourhood(space, 100, all_together).swaps(np.array([1, 0]), n_at_most=99, rng=rng).tolist()
    assert [0, 2] in Neighbourhood(three, 100, all_together).swaps(np.array([1, 0]), n_at_most=99, rng=rng).tolist()


def test_of_many_swaps_a_random_part_is_taken() -> None:
    near, choice = Neighbourhood(LARGE.space, LARGE.middle_bits(), all_together), LARGE.space.uniform(LARGE.space.formats[1])
    everything = near.swaps(choice, n_at_most=10**6, rng=np.random.default_rng(0))
    part = near.swaps(choice, n_at_most=20, rng=np.random.default_rng(0))
    assert len(everything) > 20 == len(np.unique(part, axis=0))
    assert {row.tobytes() for row in part} < {row.tobytes() for row in everything}


@given(st.integers(0, 2**32), st.integers(0, 31))
@settings(deadline=None)
def test_mutations_keep_the_bits_of_equal_units_exactly(seed: int, rest: int) -> None:
    space = space_of([[64, 96, 128, 160]] * 5 + [[32, 48, 64, 80]] * 4 + [[10, 90, 91, 92]], [[True] * 4] * 10)
    choice = np.array([1, 1, 2, 0, 3, 1, 1, 2, 1, 0])
    mutant = Neighbourhood(space, int(space.total_bits(choice)) + rest % 16, by_size).mutated(choice, np.random.default_rng(seed))
    for group in (slice(0, 5), slice(5, 9), slice(9, 10)):
        assert mutant[group].sum() == choice[group].sum()


def test_mutations_reach_one_to_three_units_up() -> None:
    space = space_of([[0, 8, 16]] * 30, [[True] * 3] * 30)
    near, choice = Neighbourhood(space, 30 * 8, all_together), np.ones(30, dtype=np.int64)
    rng = np.random.default_rng(0)
    ups = np.array([np.maximum(near.mutated(choice, rng) - choice, 0).sum() for _ in range(3_000)])
    assert np.bincount(ups, minlength=4)[:4] / 3_000 == pytest.approx([0, 5 / 9, 3 / 9, 1 / 9], abs=0.06)


def test_a_unit_does_not_pay_for_itself() -> None:
    near, choice = Neighbourhood(space_of([[0, 8, 16]] * 2, [[True] * 3] * 2), 16, all_together), np.array([1, 1])
    rng = np.random.default_rng(0)
    assert {tuple(near.mutated(choice, rng).tolist()) for _ in range(200)} == {(0, 2), (2, 0)}


def test_groups() -> None:
    assert by_size(space_of([[8, 16], [8, 16], [8, 24]], [[True, True]] * 3)).tolist() == [0, 0, 1]
    assert len(set(by_size(space_of([[8, 16], [8, 16]], [[True, True], [True, False]])).tolist())) == 2
    assert by_kind(LARGE.space).tolist() == all_together(LARGE.space).tolist() == [0] * 12


def test_there_is_nothing_near_an_impossible_budget() -> None:
    with pytest.raises(BudgetError, match="raise it"):
        Neighbourhood(LARGE.space, 1, all_together)
