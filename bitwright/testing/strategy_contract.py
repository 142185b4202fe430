"""Contract tests of ask/tell strategies. Inherit from `BudgetContract`, or for one that searches the whole front from `FrontContract`:

class TestMine(BudgetContract):
    n_to_best = 100

    def strategy(self, problem, budget_bits):
        return my_strategy(problem, budget_bits)

`n_to_best` is the number of evaluations within which it must find the best of 729 choices, or 99 % of the hypervolume of their front;
`n_against_random` the number after which it must not be worse than as many random choices, in a larger space.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwright.errors import BudgetError
from bitwright.search import Problem, Question, Strategy, Trials, hypervolume, random_front, random_within
from bitwright.spaces import BlockFormat, Choices, Space
from bitwright.testing.instances import every_choice, space_of


@dataclass(frozen=True, eq=False)
class Landscape:
    """Known loss: a sum over units, and over pairs of neighbours the product of their losses, `coupling` times."""

    space: Space
    table: NDArray[np.float64]
    coupling: float = 0.0

    def __call__(self, choices: Choices) -> NDArray[np.float64]:
        """Return the losses `(n,)` of choices `(n, n_units)`."""
        lost = self.table[np.arange(self.table.shape[0]), choices]  # (n, n_units)
        total: NDArray[np.float64] = lost.sum(axis=1) + self.coupling * (lost[:, 1:] * lost[:, :-1]).sum(axis=1)
        return total

    def middle_bits(self, share: float = 0.4) -> int:
        """Return a budget in bits at this share of the way from the smallest to the largest file."""
        space = self.space
        most = int(np.where(space.offered, space.size_bits, 0).max(axis=1).sum()) + space.fixed_bits
        least = int(space.total_bits(space.smallest()))
        return int(least + share * (most - least))

    def least(self, choices: Choices, budget_bits: int) -> float:
        """Return the least loss of those choices within a budget."""
        return float(np.append(self(choices[self.space.total_bits(choices) <= budget_bits]), np.inf).min())

    def area(self, choices: Choices) -> float:
        """Return the hypervolume of some choices below the loss of the smallest and the size of the largest file."""
        points = np.column_stack([self.space.total_bits(choices), self(choices)])
        return hypervolume(points, np.array([self.middle_bits(1.0) + 1, self(self.space.smallest()[None])[0]]))


def landscape(n_units: int, n_formats: int, *, seed: int, coupling: float = 0.0) -> Landscape:
    """Draw units of three sizes, one of them without its middle format, and losses that fall about fourfold with every format."""
    rng = np.random.default_rng(seed)
    n_weights = rng.choice([64, 128, 192], size=(n_units, 1))
    offered = np.ones((n_units, n_formats), dtype=np.bool_)
    offered[-1, n_formats // 2] = False
    space = space_of((n_weights * (2 + np.arange(n_formats))).tolist(), offered.tolist(), fixed_bits=100)
    weight = np.exp(rng.normal(0, 1, (n_units, 1)))
    return Landscape(space, weight * 4.0 ** -np.arange(n_formats) * np.exp(rng.normal(0, 0.2, offered.shape)), coupling)


#: a question as plain values: choices, number of sequences, rivals
Asked = tuple[list[list[int]], int, list[list[int]]]
#: choices and a number of sequences -> values `(n,)`
Measure = Callable[[Choices, int], NDArray[np.float64]]


def exactly(known: Landscape) -> Measure:
    """Return a measurement without an error."""
    return lambda choices, n_sequences: known(choices)


def noisily(known: Landscape) -> Measure:
    """Measure with an error of a tenth on one sequence, the same for the same choice."""

    def measure(choices: Choices, n_sequences: int) -> NDArray[np.float64]:
        errors = [np.random.default_rng(crc32(choice.tobytes())).normal() for choice in choices]
        noisy: NDArray[np.float64] = known(choices) * (1 + 0.1 * np.array(errors) / n_sequences**0.5)
        return noisy

    return measure


def answer(question: Question, measure: Measure, *, n: int) -> Trials:
    """Return the trials of the first `n` choices of a question."""
    choices = question.choices[:n]
    values = measure(choices, question.n_sequences)[:, None]
    return Trials(choices, values, np.full_like(values, 1e-3), np.full(len(choices), question.n_sequences))


def searched(strategy: Strategy, measure: Measure, *, n: int) -> list[Question]:
    """Return the questions until the strategy has finished or `n` choices were measured in all; the last may be cut short."""
    questions: list[Question] = []
    while n > 0 and not (question := strategy.ask()).is_last:
        question = replace(question, choices=question.choices[:n])
        n -= len(question.choices)
        questions.append(question)
        strategy.tell(answer(question, measure, n=len(question.choices)))
    return questions


def choices_of(questions: list[Question]) -> Choices:
    """Return all choices of some questions `(n, n_units)`."""
    return np.concatenate([question.choices for question in questions])


def problem(space: Space, *, seed: int = 0, start: Choices | None = None, n_sequences: int = 8) -> Problem:
    """Return the problem of a space, without choices to measure first unless `start` names some."""
    none = np.zeros((0, len(space.units)), dtype=np.int64)
    return Problem(space, none if start is None else start, n_sequences, seed)


def as_text(questions: list[Question]) -> list[Asked]:
    """Return all fields of the questions as plain values, to be compared."""
    return [(question.choices.tolist(), question.n_sequences, question.against.tolist()) for question in questions]


@cache
def another_process() -> ProcessPoolExecutor:
    """Return a process with a hash seed of its own, which all contracts share, since starting it takes longer than what it is asked for."""
    return ProcessPoolExecutor(1, mp_context=get_context("forkserver"))


def questions_of(contract: type["AskTellContract"]) -> list[Asked]:
    """Return the questions that a contract's strategy asks in this process."""
    return contract().first_questions()


@cache
def searched_exactly(contract: type["AskTellContract"], known: Landscape, n: int, seed: int) -> tuple[Question, ...]:
    """Return the questions of a search without errors, which several tests look at."""
    return tuple(contract().search(known, n=n, seed=seed))


def first(questions: tuple[Question, ...], n: int) -> list[Question]:
    """Return the questions of the first `n` choices; the last may be cut short."""
    found: list[Question] = []
    for question in questions:
        if n > 0:
            found.append(replace(question, choices=question.choices[:n]))
            n -= len(question.choices)
    return found


def with_another_format(known: Landscape, column: int) -> Landscape:
    """Return the landscape with a format more, at this column, that no unit is offered: its sizes and losses mean nothing."""
    space = known.space
    wider = replace(
        space,
        formats=(*space.formats[:column], BlockFormat("NEW", 16, 2), *space.formats[column:]),
        size_bits=np.insert(space.size_bits, column, 0, axis=1),
        offered=np.insert(space.offered, column, values=False, axis=1),
    )
    return replace(known, space=wider, table=np.insert(known.table, column, np.nan, axis=1))


SMALL = landscape(6, 3, seed=3)
LARGE = landscape(12, 4, seed=4, coupling=1.0)
#: `LARGE` with a format that nothing is offered in, first
WIDER = with_another_format(LARGE, 0)


class AskTellContract(ABC):
    """Contract of strategies that learn from measurements."""

    n_to_best: int
    n_against_random: int = 100
    tolerance: float

    @abstractmethod
    def make(self, known: Landscape, problem: Problem) -> Strategy:
        """Return the strategy under test, with the landscape's middle budget if it takes one."""

    @abstractmethod
    def at_random(self, known: Landscape, problem: Problem) -> Strategy:
        """Return the reference that the strategy must not be worse than."""

    @abstractmethod
    def score(self, known: Landscape, choices: Choices) -> float:
        """Return the loss of the best of the choices on a logarithmic scale; less is better."""

    def search(self, known: Landscape, *, n: int, seed: int = 0, measure: Callable[[Landscape], Measure] = exactly) -> list[Question]:
        """Run the strategy until it has finished or `n` choices were measured, and return its questions."""
        return searched(self.make(known, problem(known.space, seed=seed)), measure(known), n=n)

    def first_questions(self, seed: int = 0) -> list[Asked]:
        """Return the first questions of the strategy with this seed."""
        return as_text(self.search(LARGE, n=40, seed=seed))

    def asked(self, known: Landscape, n: int, seed: int = 0) -> list[Question]:
        """Return the first questions of the one search without errors that the tests share."""
        longest = max(60, self.n_to_best if known is SMALL else self.n_against_random)
        return first(searched_exactly(type(self), known, longest, seed), n)

    @pytest.mark.parametrize("known", [SMALL, LARGE], ids=["small", "large"])
    def test_asks_for_offered_pairs_on_the_text_there_is(self, known: Landscape) -> None:
        """Require offered pairs, and no more sequences than the text has."""
        questions = self.asked(known, 60)
        choices = choices_of(questions)
        assert choices.dtype == np.int64
        assert known.space.offered[np.arange(len(known.space.units)), choices].all()
        assert all(1 <= question.n_sequences <= 8 for question in questions)

    def test_races_only_against_what_it_asked_for_before(self) -> None:
        """Require at most one incumbent a question, one that was asked for before."""
        asked_for: set[bytes] = set()
        for question in self.asked(LARGE, 60):
            assert len(question.against) <= 1
            assert all(rival.tobytes() in asked_for for rival in question.against)
            asked_for |= {choice.tobytes() for choice in question.choices}

    def test_asked_twice_it_answers_the_same(self) -> None:
        """Require the same question until it is told something."""
        strategy = self.make(LARGE, problem(LARGE.space))
        for _ in range(3):
            question = strategy.ask()
            assert strategy.ask() is question
            strategy.tell(answer(question, exactly(LARGE), n=len(question.choices)))

    def test_begins_with_the_start(self) -> None:
        """Require the choices of the problem's start to be asked for first, in their order."""
        start = np.stack([LARGE.space.smallest(), LARGE.space.uniform(LARGE.space.formats[1])])
        asked_for = choices_of(searched(self.make(LARGE, problem(LARGE.space, start=start)), exactly(LARGE), n=2))
        assert np.array_equal(asked_for, start)

    def test_same_seed_same_questions_in_another_process_too(self) -> None:
        """Require the same questions from the same seed, in another process too."""
        here = self.first_questions()
        assert as_text(self.asked(LARGE, 40)) == here
        assert another_process().submit(questions_of, type(self)).result(300) == here

    def test_another_seed_asks_for_something_else(self) -> None:
        """Require other questions from another seed."""
        assert as_text(self.asked(LARGE, 40, seed=1)) != as_text(self.asked(LARGE, 40, seed=0))

    def test_a_format_that_no_unit_is_offered_changes_no_question(self) -> None:
        """Require the same questions where the target knows a format more that nothing is offered in."""
        narrow, wide = as_text(self.asked(LARGE, 40)), as_text(self.search(WIDER, n=40))
        assert [(np.add(choices, 1).tolist(), n, np.add(rivals, 1).tolist()) for choices, n, rivals in narrow] == wide

    def test_told_the_same_again_it_goes_on_where_it_was(self) -> None:
        """Require that a new strategy told the same trials asks the same next question."""
        first = self.make(LARGE, problem(LARGE.space))
        questions = searched(first, noisily(LARGE), n=30)
        again = self.make(LARGE, problem(LARGE.space))
        for question in questions:
            again.tell(answer(again.ask(), noisily(LARGE), n=len(question.choices)))
        assert as_text([again.ask()]) == as_text([first.ask()])

    @pytest.mark.parametrize("share", [0.0, 0.5])
    def test_bears_it_when_only_a_part_is_measured(self, share: float) -> None:
        """Require that the strategy continues when only the first choices of a question are measured, or none."""
        strategy = self.make(LARGE, problem(LARGE.space))
        for turn in range(8):
            if (question := strategy.ask()).is_last:
                break
            n = len(question.choices)
            strategy.tell(answer(question, exactly(LARGE), n=n if turn % 2 else int(share * n)))

    @pytest.mark.parametrize("measure", [noisily, lambda known: lambda choices, _: np.ones(len(choices))], ids=["noise", "all equal"])
    def test_survives(self, measure: Callable[[Landscape], Measure]) -> None:
        """Require that the strategy keeps asking, on noisy and on constant values."""
        assert len(choices_of(self.search(LARGE, n=60, measure=measure))) == 60

    def test_finishes_where_no_choice_is_left(self) -> None:
        """Require that the only choice of a space is asked for once, and then no other."""
        only = LARGE.space.smallest()
        known = replace(LARGE, space=LARGE.space.narrowed(np.arange(4) == only[:, None]))
        assert choices_of(self.search(known, n=100)).tolist() == [only.tolist()]

    def test_finds_the_best_of_a_small_space(self) -> None:
        """Require the best of a small space, to within `tolerance`, in `n_to_best` evaluations."""
        found = self.score(SMALL, choices_of(self.asked(SMALL, self.n_to_best)))
        assert found <= self.score(SMALL, every_choice(SMALL.space)) + self.tolerance

    def test_is_no_worse_than_random(self) -> None:
        """Require a score no worse than that of random choices, as the mean over four seeds."""
        mine, random, n = [], [], self.n_against_random
        for seed in range(4):
            mine.append(self.score(LARGE, choices_of(self.asked(LARGE, n, seed=seed))))
            at_random = searched(self.at_random(LARGE, problem(LARGE.space, seed=seed)), exactly(LARGE), n=n)
            random.append(self.score(LARGE, choices_of(at_random)))
        assert np.mean(mine) <= np.mean(random) + 1e-9


class FrontContract(AskTellContract):
    """Contract of strategies that search the whole front."""

    tolerance = 0.01

    @abstractmethod
    def strategy(self, problem: Problem) -> Strategy:
        """Return the strategy under test."""

    def make(self, known: Landscape, problem: Problem) -> Strategy:
        """Return the strategy under test; the problem has no budget."""
        return self.strategy(problem)

    def at_random(self, known: Landscape, problem: Problem) -> Strategy:
        """Return the strategy that draws choices of all sizes at random."""
        return random_front(problem, n=self.n_against_random)

    def score(self, known: Landscape, choices: Choices) -> float:
        """Return minus the logarithm of the hypervolume."""
        return -float(np.log(known.area(choices)))


class BudgetContract(AskTellContract):
    """Contract of strategies that are given a budget."""

    tolerance = 1e-9

    @abstractmethod
    def strategy(self, problem: Problem, budget_bits: int) -> Strategy:
        """Return the strategy under test."""

    def make(self, known: Landscape, problem: Problem) -> Strategy:
        """Return the strategy under test at the landscape's middle budget."""
        return self.strategy(problem, known.middle_bits())

    def at_random(self, known: Landscape, problem: Problem) -> Strategy:
        """Return the strategy that draws choices within the budget at random."""
        return random_within(problem, known.middle_bits(), n=self.n_against_random)

    def score(self, known: Landscape, choices: Choices) -> float:
        """Return the logarithm of the least loss within the budget."""
        return float(np.log(known.least(choices, known.middle_bits())))

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.9, 1.0])
    def test_never_asks_above_the_budget(self, share: float) -> None:
        """Require every question to stay within the budget."""
        budget_bits = LARGE.middle_bits(share)
        choices = choices_of(searched(self.strategy(problem(LARGE.space), budget_bits), exactly(LARGE), n=40))
        assert len(choices)
        assert (LARGE.space.total_bits(choices) <= budget_bits).all()

    def test_leaves_out_what_of_the_start_is_above_the_budget(self) -> None:
        """Require that choices of the start above the budget are left out."""
        start = np.stack([LARGE.space.uniform(LARGE.space.formats[3]), LARGE.space.smallest()])
        asked_for = choices_of(searched(self.make(LARGE, problem(LARGE.space, start=start)), exactly(LARGE), n=1))
        assert asked_for.tolist() == [LARGE.space.smallest().tolist()]

    def test_refuses_a_budget_below_the_smallest_file_before_it_asks(self) -> None:
        """Require a `BudgetError` below the smallest file, before any question."""
        too_small = int(LARGE.space.total_bits(LARGE.space.smallest())) - 1
        with pytest.raises(BudgetError, match=r"smallest file .* raise it"):
            self.strategy(problem(LARGE.space), too_small)
