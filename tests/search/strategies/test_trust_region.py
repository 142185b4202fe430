"""The trust region: the contract, a radius that is kept, that grows and that shrinks."""

from dataclasses import replace

import numpy as np
import pytest

from bitwright.search import Problem, Strategy, TrustRegionOptions, turbo
from bitwright.testing.strategy_contract import LARGE, BudgetContract, answer, problem, searched
from tests.search.learners import learning

FEW = TrustRegionOptions(n_walks=60)


@pytest.mark.slow
class TestTrustRegion(BudgetContract):
    n_to_best = 150

    def strategy(self, problem: Problem, budget_bits: int) -> Strategy:
        return turbo(problem, budget_bits, learning(problem.space), FEW)


def radii(region: TrustRegionOptions, values: list[float]) -> list[int]:
    """The distance from the incumbent of the farthest choice of each question, where every choice of the k-th question measures `values[k]`."""
    told = iter([10.0, *values])
    strategy = turbo(problem(LARGE.space), LARGE.middle_bits(), learning(LARGE.space), region)
    reached = []
    for value in told:
        question = strategy.ask()
        if len(question.against):
            reached.append(int((question.choices != question.against).sum(axis=1).max()))
        strategy.tell(answer(question, lambda choices, _, value=value: np.full(len(choices), value), n=len(question.choices)))
    return reached


def test_the_region_keeps_its_radius_and_grows_by_half_after_successes() -> None:
    region = replace(FEW, radius=4.0, n_successes=2, n_at_once=400)
    reached = radii(region, [9.0, 8.0, 7.0, 6.0, 5.0])
    assert reached[:4] == [4, 4, 6, 6]
    assert 6 < reached[4] <= 9


@pytest.mark.slow
def test_it_shrinks_to_two_thirds_after_failures_and_to_nothing_means_again_from_elsewhere() -> None:
    region = replace(FEW, radius=4.0, n_failures=1, n_at_once=100, n_pairs=5, n_walks=300)
    strategy = turbo(problem(LARGE.space), LARGE.middle_bits(), learning(LARGE.space), region)
    questions = searched(strategy, lambda choices, _: np.arange(1.0, 1 + len(choices)), n=600)
    farthest = [int((question.choices != question.against).sum(axis=1).max()) if len(question.against) else -1 for question in questions]
    assert farthest[:4] == [-1, 4, 2, -1]
    assert len(questions[3].choices) == 1
    assert (questions[3].choices != questions[0].choices).any()


def test_it_ends_after_its_restarts() -> None:
    strategy = turbo(problem(LARGE.space), LARGE.middle_bits(), learning(LARGE.space), replace(FEW, n_failures=1, n_restarts=1))
    searched(strategy, lambda choices, _: np.ones(len(choices)), n=10**6)
    assert strategy.ask().is_last
