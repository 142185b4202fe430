"""Random choices: the contract, budgets used up, mixes of two formats, all sizes in turn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.search import Problem, Strategy, random_front, random_mixes, random_within
from bitwright.search.solvers.format_ranks import FormatRanks
from bitwright.search.strategies.random_choices import mixing
from bitwright.spaces import Space
from bitwright.testing.strategy_contract import LARGE, SMALL, BudgetContract, FrontContract, choices_of, exactly, problem, searched
from tests.search.instances import Table, budgets, instances, space_of


class TestRandomWithin(BudgetContract):
    n_to_best = 200

    def strategy(self, problem: Problem, budget_bits: int) -> Strategy:
        return random_within(problem, budget_bits, n=1_000)


@pytest.mark.slow
class TestRandomFront(FrontContract):
    n_to_best = 700

    def strategy(self, problem: Problem) -> Strategy:
        return random_front(problem, n=1_000)


@given(instances(), st.floats(0.0, 1.0), st.sampled_from([random_within, random_mixes]))
@settings(deadline=None)
def test_nothing_more_fits_in_a_random_choice(instance: tuple[Space, Table], share: float, strategy: type) -> None:
    space, budget_bits = instance[0], budgets(instance[0], share)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bitwright.search.solvers.asked_choices._ATTEMPTS", 20)  # most of these spaces are exhausted by fewer than five choices
        choices = choices_of(searched(strategy(problem(space), budget_bits, n=5), lambda choices, _: np.ones(len(choices)), n=5))
    assert (space.total_bits(choices) <= budget_bits).all()
    if strategy is random_within:
        format_ranks = FormatRanks(space)
        left = budget_bits - space.total_bits(choices)
        assert all(format_ranks.step_up(ranks).min() > more for ranks, more in zip(format_ranks.ranks(choices), left, strict=True))


def test_it_ends_after_as_many_as_are_wanted_or_when_there_are_no_more() -> None:
    budget_bits = LARGE.middle_bits()
    assert len(choices_of(searched(random_within(problem(LARGE.space), budget_bits, n=13), exactly(LARGE), n=10**6))) == 13
    everything = choices_of(searched(random_within(problem(SMALL.space), SMALL.middle_bits(1.0), n=10**6), exactly(SMALL), n=10**6))
    assert everything.tolist() == [SMALL.space.uniform(SMALL.space.formats[2]).tolist()]


@pytest.mark.parametrize("rest", [0, 31])
def test_mixes_hold_the_two_formats_next_to_the_budget_and_use_it_up(rest: int) -> None:
    space = space_of([[64, 96, 128, 192]] * 10, [[True] * 4] * 10, fixed_bits=7)
    budget_bits = 7 + 10 * 96 + 5 * 32 + rest  # five units up, and what buys nothing
    mixes = choices_of(searched(random_mixes(problem(space), budget_bits, n=50), lambda choices, _: np.ones(len(choices)), n=50))
    assert len(np.unique(mixes, axis=0)) == 50
    assert np.isin(mixes, [1, 2]).all()
    assert ((mixes == 2).sum(axis=1) == 5).all()


def test_a_mix_at_a_uniform_budget_is_uniform() -> None:
    space = space_of([[64, 96, 128]] * 4, [[True] * 3] * 4)
    assert mixing(space, 4 * 96)(np.random.default_rng(0)).tolist() == [1] * 4


def test_below_the_smallest_uniform_a_mix_begins_with_the_smallest_choice() -> None:
    space = space_of([[64, 96], [48, 32]], [[True] * 2] * 2)  # uniform: 112 and 128 bits, smallest 96
    assert mixing(space, 100)(np.random.default_rng(0)).tolist() == [0, 1]


def test_the_front_is_covered_evenly() -> None:
    choices = choices_of(searched(random_front(problem(LARGE.space), n=400), exactly(LARGE), n=400))
    sizes = (LARGE.space.total_bits(choices) - LARGE.middle_bits(0.0)) / (LARGE.middle_bits(1.0) - LARGE.middle_bits(0.0))
    assert np.histogram(sizes, bins=4, range=(0, 1))[0] == pytest.approx([100] * 4, abs=30)
