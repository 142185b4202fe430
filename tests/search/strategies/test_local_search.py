"""Local search: the contract, what it tries first and what it leaves untried, restarts, and learning on the way."""

from dataclasses import replace

import numpy as np
import pytest

from bitwright.search import Learning, LocalSearchOptions, Problem, Strategy, Trials, swaps
from bitwright.testing.strategy_contract import LARGE, SMALL, BudgetContract, answer, choices_of, exactly, problem, searched
from tests.search.instances import every_choice
from tests.search.learners import knowing, learning, ridge

pytestmark = pytest.mark.slow

FEW = LocalSearchOptions(n_mutants=30, patience=40)


class TestLocalSearch(BudgetContract):
    n_to_best = 150

    def strategy(self, problem: Problem, budget_bits: int) -> Strategy:
        return swaps(problem, budget_bits, learning(problem.space), FEW)


def never(predict) -> Learning:
    return Learning(predict, lambda *_: predict)


def test_a_true_prediction_leads_straight_to_a_local_optimum() -> None:
    start = LARGE.space.smallest()[None]
    true = never(lambda choices: (LARGE(choices), np.full(len(choices), 1e-6)))
    strategy = swaps(problem(LARGE.space, start=start), LARGE.middle_bits(), true, replace(FEW, n_restarts=0, n_at_once=1))
    values = LARGE(choices_of(searched(strategy, exactly(LARGE), n=10**6)))
    assert (np.diff(values) < 0).all()  # no step in vain
    assert strategy.ask().is_last


def test_what_is_hopeless_is_not_tried() -> None:
    budget_bits = LARGE.middle_bits()
    best = searched(swaps(problem(LARGE.space), budget_bits, never(knowing(LARGE, error=0.01)), FEW), exactly(LARGE), n=150)
    optimum = choices_of(best)[LARGE(choices_of(best)).argmin()]
    tried = {}
    for least_gain in (0.0, -2.0, -np.inf):
        numbers = replace(FEW, n_restarts=0, least_gain=least_gain, patience=10**6)
        strategy = swaps(problem(LARGE.space, start=optimum[None]), budget_bits, never(knowing(LARGE, error=0.05)), numbers)
        tried[least_gain] = len(choices_of(searched(strategy, exactly(LARGE), n=300)))
    assert tried[0.0] < tried[-2.0] < tried[-np.inf]


def test_it_races_against_the_incumbent_and_moves_on_at_the_first_better_one() -> None:
    strategy = swaps(problem(LARGE.space), LARGE.middle_bits(), learning(LARGE.space), FEW)
    start = strategy.ask().choices[0]
    strategy.tell(answer(strategy.ask(), lambda choices, _: np.ones(len(choices)), n=1))
    first = strategy.ask()
    assert np.array_equal(first.against, start[None])
    strategy.tell(answer(first, lambda choices, _: np.array([2.0, 0.5, 3.0, 0.9]), n=4))
    assert np.array_equal(strategy.ask().against, first.choices[1:2])


def test_a_choice_that_was_stopped_early_is_no_incumbent() -> None:
    strategy = swaps(problem(LARGE.space), LARGE.middle_bits(), learning(LARGE.space), FEW)
    strategy.tell(answer(strategy.ask(), exactly(LARGE), n=1))
    first = strategy.ask()
    trials = answer(first, lambda choices, _: np.full(len(choices), -1.0), n=4)
    strategy.tell(Trials(trials.choices, trials.values, trials.errors, np.array([8, 3, 3, 3])))
    assert np.array_equal(strategy.ask().against, first.choices[:1])


def test_it_starts_again_near_the_best_when_nothing_is_left_and_in_the_end_has_seen_all() -> None:
    strategy = swaps(problem(SMALL.space), SMALL.middle_bits(), learning(SMALL.space), replace(FEW, least_gain=-np.inf))
    asked_for = choices_of(searched(strategy, exactly(SMALL), n=10**6))
    assert strategy.ask().is_last
    assert len(np.unique(asked_for, axis=0)) == len(asked_for)
    fits = every_choice(SMALL.space)
    assert len(asked_for) > 0.5 * (SMALL.space.total_bits(fits) <= SMALL.middle_bits()).sum()


def test_after_so_many_in_vain_it_starts_again_elsewhere() -> None:
    strategy = swaps(problem(LARGE.space), LARGE.middle_bits(), learning(LARGE.space), replace(FEW, patience=12, least_gain=-np.inf))
    questions = searched(strategy, lambda choices, _: np.ones(len(choices)), n=40)
    assert [(len(question.choices), len(question.against)) for question in questions[:6]] == [(1, 0), (4, 1), (4, 1), (4, 1), (1, 0), (4, 1)]


def test_it_learns_from_the_first_so_many_measurements_and_again_after_so_many_more() -> None:
    fitted: list[int] = []

    def refit(choices, values, errors):
        assert values.shape == errors.shape == (len(choices),)
        fitted.append(len(choices))
        return ridge(LARGE.space)(choices, values, errors)

    numbers = replace(FEW, n_at_once=1)
    strategy = swaps(problem(LARGE.space), LARGE.middle_bits(), Learning(knowing(LARGE), refit, n_first=5, n_between=3), numbers)
    searched(strategy, exactly(LARGE), n=15)
    strategy.ask()
    assert fitted == [5, 8, 11, 14]
