"""The loop of AMQ: the contract, its designs, what a round does, and that numbers are kept exactly."""

import numpy as np
import pytest

from bitwright.errors import UserError
from bitwright.search import Problem, Rounds, Strategy, clustered, nondominated, predicted_front
from bitwright.search.strategies.amq import stratified
from bitwright.search.strategies.genetic import Breeding
from bitwright.testing.strategy_contract import LARGE, FrontContract, choices_of, exactly, problem, searched
from tests.search.instances import space_of
from tests.search.learners import ridge

FEW = Rounds(40, 30, 12, breeding=Breeding(60, 8))


@pytest.mark.slow
class TestAmq(FrontContract):
    n_to_best = 300

    def strategy(self, problem: Problem) -> Strategy:
        return predicted_front(problem, ridge(problem.space), FEW)


def test_a_design_and_then_rounds_of_so_many() -> None:
    fitted: list[int] = []

    def refit(choices, values, errors):
        fitted.append(len(choices))
        return ridge(LARGE.space)(choices, values, errors)

    questions = searched(predicted_front(problem(LARGE.space), refit, Rounds(40, 3, 10)), exactly(LARGE), n=10**6)
    assert [len(question.choices) for question in questions] == [40, 10, 10, 10]
    assert fitted == [40, 50, 60]
    assert len(np.unique(choices_of(questions), axis=0)) == 70


def test_it_breeds_from_the_measured_front_and_asks_for_as_many_new_ones_as_it_may() -> None:
    bred_from: list[np.ndarray] = []

    def refit(choices, values, errors):
        points = np.column_stack([LARGE.space.total_bits(choices), values])
        front, calls = choices[nondominated(points)], []

        def predict(others):
            if not calls:
                bred_from.append(np.array_equal(np.unique(others, axis=0), np.unique(front, axis=0)))
            calls.append(len(others))
            return ridge(LARGE.space)(choices, values, errors)(others)

        return predict

    rounds = Rounds(40, 4, 20, breeding=Breeding(60, 4))
    questions = searched(predicted_front(problem(LARGE.space), refit, rounds), exactly(LARGE), n=10**6)
    assert [len(question.choices) for question in questions] == [40, 20, 20, 20, 20]
    assert bred_from == [True] * 4


def test_the_published_numbers_are_10250_evaluations() -> None:
    rounds = Rounds()
    assert rounds.n_first + rounds.n_rounds * rounds.n_each == 10_250
    assert rounds.breeding == Breeding(population=200, n_generations=20, crossover=0.9, mutation=0.1)


@pytest.mark.parametrize("design", [stratified, clustered])
def test_a_design_begins_with_the_uniform_choices_and_is_of_offered_pairs(design) -> None:
    choices = design(LARGE.space, 200, np.random.default_rng(0))
    assert choices.shape == (200, 12)
    assert choices.dtype == np.int64
    assert choices[:4].tolist() == [LARGE.space.uniform(form).tolist() for form in LARGE.space.formats]
    assert LARGE.space.offered[np.arange(12), choices].all()
    assert design(LARGE.space, 2, np.random.default_rng(0)).shape == (2, 12)


@pytest.mark.slow
def test_the_stratified_design_covers_all_sizes_and_the_published_one_the_middle() -> None:
    space = space_of([[64, 96, 128]] * 60, [[True] * 3] * 60)
    quarters = []
    for design in (stratified, clustered):
        sizes = (space.total_bits(design(space, 403, np.random.default_rng(0)))[3:] - 60 * 64) / (60 * 64)
        quarters.append(np.histogram(sizes, bins=4, range=(0, 1))[0])
    assert quarters[0] == pytest.approx([100] * 4, abs=25)
    assert quarters[1][1:3].sum() > 300
    assert quarters[1][[0, 3]].max() < 50


def test_in_the_published_design_all_units_share_their_probabilities() -> None:
    space = space_of([[64, 96, 128]] * 2_000, [[True] * 3] * 2_000)
    first, second = clustered(space, 5, np.random.default_rng(0))[3:]
    shares = [np.bincount(choice, minlength=3) / 2_000 for choice in (first, second)]
    assert np.abs(shares[0] - shares[1]).max() > 0.1
    halves = [np.bincount(half, minlength=3) / 1_000 for half in (first[:1_000], first[1_000:])]
    assert halves[0] == pytest.approx(halves[1], abs=0.1)


def test_what_the_predictor_refuses_is_told() -> None:
    def refit(choices, values, errors):
        raise UserError("A predictor needs 13 choices, these are 12: measure more.")

    with pytest.raises(UserError, match="needs 13 choices"):
        searched(predicted_front(problem(LARGE.space), refit, Rounds(12, 3, 10)), exactly(LARGE), n=100)
