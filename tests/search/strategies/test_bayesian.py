"""Expected hypervolume improvement: the contract, that it goes where the front is open, and BoTorch's absence."""

import sys

import numpy as np
import pytest

from bitwright.errors import LibraryError
from bitwright.search import NehviOptions, Problem, Question, Strategy, nehvi_front, nondominated
from bitwright.testing.strategy_contract import LARGE, FrontContract, choices_of, exactly, problem, searched
from tests.search.learners import ignorant, knowing
from tests.sentences import sentence

pytestmark = pytest.mark.slow

FEW = NehviOptions(n_first=24, n_each=12, n_pool=64, n_samples=8)


class TestExpectedHypervolume(FrontContract):
    n_to_best = 84
    n_against_random = 60

    def strategy(self, problem: Problem) -> Strategy:
        return nehvi_front(problem, ignorant, FEW)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    """Return the questions of a search with a prior that knows."""
    return searched(nehvi_front(problem(LARGE.space), knowing(LARGE), FEW), exactly(LARGE), n=60)


def test_most_of_what_it_asks_for_is_on_the_front_when_it_is_asked(questions: list[Question]) -> None:
    choices = choices_of(questions)
    points = np.column_stack([LARGE.space.total_bits(choices), LARGE(choices)])
    on_front = [nondominated(points[: i + 1])[i] for i in range(FEW.n_first, 60)]
    assert np.mean(on_front) > 0.6


def test_a_prior_that_knows_is_better_than_none() -> None:
    area = {}
    for prior in (ignorant, knowing(LARGE, error=0.1)):
        area[prior] = [
            LARGE.area(choices_of(searched(nehvi_front(problem(LARGE.space, seed=seed), prior, FEW), exactly(LARGE), n=36))) for seed in range(2)
        ]
    without, with_prior = area.values()
    assert np.mean(with_prior) > np.mean(without)


def test_what_is_asked_together_lies_apart(questions: list[Question]) -> None:
    assert len(np.unique(choices_of(questions), axis=0)) == 60
    gaps = [np.diff(np.sort(LARGE.space.total_bits(question.choices))) for question in questions[1:]]
    assert (np.concatenate(gaps) < 64).sum() <= 1  # 64 bits are the least step of any unit


def test_a_loss_of_nothing_is_borne() -> None:
    assert len(choices_of(searched(nehvi_front(problem(LARGE.space), ignorant, FEW), lambda choices, _: np.zeros(len(choices)), n=36))) == 36


def test_without_botorch_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botorch", None)
    with pytest.raises(LibraryError) as refused:
        nehvi_front(problem(LARGE.space), ignorant, FEW)
    sentence(refused.value, "botorch", "bitwright[search]")
