"""Evolution: the contract, sizes that mutations keep, stages and survivors, the parent that stays, the published settings."""

from dataclasses import replace

import numpy as np
import pytest

from bitwright.search import Problem, Strategy, Trials, evopress, quantization
from bitwright.search.strategies.evolution import EvoPressOptions, Stage, at_budget, sparsity, super_fast
from bitwright.search.strategies.neighbours import all_together
from bitwright.testing.strategy_contract import LARGE, BudgetContract, answer, exactly, problem, searched
from tests.search.instances import space_of

FAST = EvoPressOptions(200, 8, (Stage(2, 2), Stage(1, 8)), all_together)


class TestEvolution(BudgetContract):
    n_to_best = 300

    def strategy(self, problem: Problem, budget_bits: int) -> Strategy:
        return evopress(problem, budget_bits, FAST)


def test_a_generation_is_selected_in_stages_on_more_and_more_text() -> None:
    generations = EvoPressOptions(2, 6, (Stage(3, 1), Stage(2, 2), Stage(1, 4)), all_together, n_initial=5)
    questions = searched(evopress(problem(LARGE.space), LARGE.middle_bits(), generations), exactly(LARGE), n=10**6)
    rounds = [(5, 1, 0), (1, 4, 0), *[(6, 1, 0), (3, 2, 0), (2, 4, 1)] * 2]
    assert [(len(q.choices), q.n_sequences, len(q.against)) for q in questions] == rounds


def test_no_stage_measures_on_more_text_than_there_is() -> None:
    generations = EvoPressOptions(2, 6, (Stage(3, 4), Stage(1, 100)), all_together)
    questions = searched(evopress(problem(LARGE.space, n_sequences=7), LARGE.middle_bits(), generations), exactly(LARGE), n=10**6)
    assert [question.n_sequences for question in questions] == [4, 7, 4, 7, 4, 7]


def test_survivors_are_the_best_and_the_parent_stays_until_it_is_beaten() -> None:
    strategy = evopress(given_start(), LARGE.middle_bits(), EvoPressOptions(3, 6, (Stage(2, 1), Stage(1, 4)), all_together))
    parent = strategy.ask().choices
    strategy.tell(answer(strategy.ask(), lambda choices, _: np.zeros(len(choices)), n=1))
    offspring = strategy.ask().choices
    strategy.tell(answer(strategy.ask(), lambda choices, _: np.arange(6.0)[::-1], n=6))
    last = strategy.ask()
    assert np.array_equal(last.choices, offspring[[5, 4]])
    assert np.array_equal(last.against, parent)
    strategy.tell(answer(last, lambda choices, _: np.array([1.0, 2.0]), n=2))
    assert all((choice != parent).sum() > 0 for choice in strategy.ask().choices)
    strategy.tell(answer(strategy.ask(), lambda choices, _: np.arange(6.0), n=6))
    better = strategy.ask().choices[1]
    strategy.tell(answer(strategy.ask(), lambda choices, _: np.array([1.0, -1.0]), n=2))
    strategy.tell(answer(strategy.ask(), lambda choices, _: np.arange(6.0), n=6))
    assert np.array_equal(strategy.ask().against, better[None])


def test_an_offspring_that_was_stopped_early_does_not_replace_the_parent() -> None:
    strategy = evopress(given_start(), LARGE.middle_bits(), EvoPressOptions(2, 4, (Stage(1, 8),), all_together))
    parent = strategy.ask().choices
    strategy.tell(answer(strategy.ask(), exactly(LARGE), n=1))
    trials = answer(strategy.ask(), lambda choices, _: np.full(len(choices), -1.0), n=4)
    strategy.tell(Trials(trials.choices, trials.values, trials.errors, trials.n_sequences - 1))
    assert np.array_equal(strategy.ask().against, parent)


def given_start() -> Problem:
    """Return a problem with one choice to start from, at the middle of the sizes."""
    return problem(LARGE.space, start=at_budget(LARGE.space, LARGE.middle_bits(), 1, np.random.default_rng(0)))


def test_without_a_start_the_first_parent_is_the_best_of_random_allocations_at_the_budget() -> None:
    generations = EvoPressOptions(1, 2, (Stage(1, 1), Stage(1, 4)), all_together, n_initial=8)
    strategy, budget = evopress(problem(LARGE.space), LARGE.middle_bits(), generations), LARGE.middle_bits()
    drawn = strategy.ask().choices
    steps = np.diff(np.sort(np.where(LARGE.space.offered, LARGE.space.size_bits, 0), axis=1), axis=1)
    assert len(drawn) > 1
    assert (LARGE.space.total_bits(drawn) <= budget).all()
    assert (budget - LARGE.space.total_bits(drawn) < steps.max()).all(), "the last step that was taken down made it fit"
    strategy.tell(answer(strategy.ask(), lambda choices, _: np.abs(np.arange(len(choices)) - 3.0), n=len(drawn)))
    assert np.array_equal(strategy.ask().choices, drawn[[3]])


def test_it_ends_after_the_last_generation() -> None:
    strategy = evopress(problem(LARGE.space), LARGE.middle_bits(), replace(FAST, n_generations=3))
    searched(strategy, exactly(LARGE), n=10**6)
    assert strategy.ask().is_last


def test_without_a_start_the_first_parent_is_uniform_where_the_budget_is() -> None:
    space = space_of([[64, 96, 128]] * 4, [[True] * 3] * 4)
    assert evopress(problem(space), 4 * 96, FAST).ask().choices.tolist() == [[1, 1, 1, 1]]


def test_equal_units_keep_their_bits_all_the_way() -> None:
    space = space_of([[64, 96, 128, 160]] * 6 + [[32, 48, 64, 80]] * 6, [[True] * 4] * 12)
    start = np.full((1, 12), 1)
    questions = searched(
        evopress(problem(space, start=start), int(space.total_bits(start)[0]), EvoPressOptions(30, 8, (Stage(1, 1),))),
        lambda choices, _: np.random.default_rng(0).random(len(choices)),
        n=10**6,
    )
    choices = np.concatenate([question.choices for question in questions])
    assert len(np.unique(choices, axis=0)) > 100
    for group in (slice(0, 6), slice(6, 12)):
        assert (choices[:, group].sum(axis=1) == 6).all()


def test_the_published_settings() -> None:
    assert quantization(2_048) == EvoPressOptions(150, 128, (Stage(16, 1), Stage(4, 8), Stage(1, 64)))
    assert super_fast(256) == EvoPressOptions(400, 16, (Stage(1, 2), Stage(1, 32)))
    assert sparsity(1_000).stages == (Stage(8, 3), Stage(2, 17), Stage(1, 66))


@pytest.mark.parametrize("stages", [(), (Stage(4, 1),)])
def test_the_last_stage_has_one_survivor(stages: tuple[Stage, ...]) -> None:
    with pytest.raises(ValueError, match="the last has one survivor"):
        EvoPressOptions(1, 1, stages)
