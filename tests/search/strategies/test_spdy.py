"""SPDY: the contract, the published course of the search, and a table that is wrong about one unit."""

import numpy as np
import pytest

from bitwright.errors import UserError
from bitwright.search import Problem, Solution, SpdyOptions, Strategy, solve, spdy_search
from bitwright.search.strategies import spdy
from bitwright.testing.strategy_contract import LARGE, SMALL, WIDER, BudgetContract, answer, choices_of, exactly, problem, searched
from tests.search.instances import every_choice

pytestmark = pytest.mark.slow

TABLES = {known.space.offered.shape: known.table for known in (SMALL, LARGE, WIDER)}


class TestSpdy(BudgetContract):
    n_to_best = 150

    def strategy(self, problem: Problem, budget_bits: int) -> Strategy:
        return spdy_search(problem, budget_bits, table=TABLES[problem.space.offered.shape], numbers=SpdyOptions())


def test_the_table_as_it_is_comes_first() -> None:
    strategy = spdy_search(problem(LARGE.space), LARGE.middle_bits(), table=LARGE.table, numbers=SpdyOptions())
    assert (strategy.ask().choices[0] == solve(LARGE.space, LARGE.table, LARGE.middle_bits()).choice).all()


def test_after_the_random_vectors_it_goes_on_from_the_best_one_by_one() -> None:
    strategy = spdy_search(problem(LARGE.space), LARGE.middle_bits(), table=LARGE.table, numbers=SpdyOptions(n_first=20))
    first = strategy.ask()
    values = np.linspace(2, 1, len(first.choices))
    strategy.tell(answer(first, lambda choices, _: values, n=len(values)))
    second = strategy.ask()
    assert len(second.choices) == 1
    assert (second.against == first.choices[-1:]).all()
    strategy.tell(answer(second, lambda choices, _: np.zeros(1), n=1))
    assert (strategy.ask().against == second.choices).all()


def test_it_ends_after_so_many_draws_in_vain() -> None:
    numbers = SpdyOptions(n_first=3, n_tries=7, share=0.25)
    strategy = spdy_search(problem(LARGE.space), LARGE.middle_bits(), table=LARGE.table, numbers=numbers)
    questions = searched(strategy, lambda choices, _: np.arange(len(choices), dtype=float), n=10**6)  # what comes later is never better
    assert strategy.ask().is_last
    assert sum(len(question.choices) for question in questions[1:]) <= 3 * 7


def test_a_better_choice_gives_a_hundred_new_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = iter(every_choice(LARGE.space.narrowed(np.arange(4) < 2)))  # a new one for every vector
    monkeypatch.setattr(spdy, "solve", lambda *_: Solution(next(choices), 0.0, 0, 0.0, 0))
    strategy = spdy_search(problem(LARGE.space), LARGE.middle_bits(), table=LARGE.table, numbers=SpdyOptions(n_first=1, n_tries=5))
    values = iter([9.0, 9.0, 9.0, 9.0, 9.0, 8.0, *[9.0] * 20])
    questions = searched(strategy, lambda asked_for, _: np.array([next(values) for _ in asked_for]), n=10**6)
    assert [len(question.choices) for question in questions] == [2] + [1] * (4 + 5)  # the fourth try is better, and the next five are not


def test_a_table_that_is_wrong_about_some_units_is_put_right() -> None:
    wrong = LARGE.table * np.where(np.arange(12) % 2, 8.0, 1.0)[:, None]
    budget_bits = LARGE.middle_bits()
    strategy = spdy_search(problem(LARGE.space), budget_bits, table=wrong, numbers=SpdyOptions())
    found = LARGE(choices_of(searched(strategy, exactly(LARGE), n=400))).min()
    assert found < 0.9 * LARGE(solve(LARGE.space, wrong, budget_bits).choice[None])[0]


def test_a_table_that_cannot_be_used_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(UserError, match="compute it again"):
        spdy_search(problem(LARGE.space), LARGE.middle_bits(), table=SMALL.table, numbers=SpdyOptions())
