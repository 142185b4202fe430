"""Courses: questions stay until they are answered, answers are checked, and nothing is thought out before it is asked for."""

from collections.abc import Generator

import numpy as np
import pytest

from bitwright.search import Problem, Question, Trials
from bitwright.search.strategies.generator_strategy import GeneratorStrategy
from bitwright.search.strategies.strategy import asked
from bitwright.testing.strategy_contract import LARGE, SMALL, answer, exactly, problem

FIRST, SECOND = SMALL.space.smallest()[None], np.zeros((3, 6), dtype=np.int64)
SECOND[1:, 0] = [1, 2]


def two_questions(log: list[str]) -> Generator[Question, Trials, None]:
    log.append("first")
    trials = yield asked(FIRST, 8)
    log.append(f"told of {len(trials)}")
    trials = yield asked(SECOND, 4)
    log.append(f"told of {len(trials)}")


def test_it_goes_on_when_it_is_asked_and_ends_with_an_empty_question() -> None:
    log: list[str] = []
    course = GeneratorStrategy(problem(SMALL.space), two_questions(log))
    assert log == []
    assert course.ask() is course.ask()
    assert log == ["first"]
    course.tell(answer(course.ask(), exactly(SMALL), n=1))
    assert log == ["first"]
    assert np.array_equal(course.ask().choices, SECOND)
    course.tell(answer(course.ask(), exactly(SMALL), n=2))
    for _ in range(2):
        assert course.ask().is_last
    assert course.ask().choices.shape == (0, 6)
    assert log == ["first", "told of 1", "told of 2"]


def test_told_unasked_it_asks_itself_first() -> None:
    course = GeneratorStrategy(problem(SMALL.space), two_questions([]))
    course.tell(answer(asked(FIRST, 8), exactly(SMALL), n=1))
    assert np.array_equal(course.ask().choices, SECOND)


def test_an_answer_to_another_question_is_refused_and_the_question_stays() -> None:
    course = GeneratorStrategy(problem(SMALL.space), two_questions([]))
    course.tell(answer(course.ask(), exactly(SMALL), n=1))
    for wrong in (SECOND[1:], SECOND[::-1], np.concatenate([SECOND, FIRST])):
        with pytest.raises(ValueError, match="are not its first"):
            course.tell(answer(asked(wrong, 4), exactly(SMALL), n=len(wrong)))
    assert np.array_equal(course.ask().choices, SECOND)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    course = GeneratorStrategy(problem(SMALL.space), two_questions([]))
    for values, errors in (([[value]], [[0.1]]), ([[1.0]], [[value]])):
        with pytest.raises(ValueError, match="must be finite"):
            course.tell(Trials(FIRST, np.array(values), np.array(errors), np.array([8])))


def test_a_start_must_be_of_offered_formats() -> None:
    not_offered = np.full((1, 12), 2)
    with pytest.raises(ValueError, match="rows of 12 offered formats"):
        problem(LARGE.space, start=not_offered)
    with pytest.raises(ValueError, match="rows of 12 offered formats"):
        Problem(LARGE.space, np.zeros(12, dtype=np.int64), 8, 0)


def test_a_start_within_a_budget_and_randomness_that_begins_anew() -> None:
    start = np.stack([LARGE.space.uniform(form) for form in LARGE.space.formats])
    given = problem(LARGE.space, start=start)
    assert np.array_equal(given.start_within(int(LARGE.space.total_bits(start[1]))), start[:2])
    assert given.random().random() == given.random().random()
