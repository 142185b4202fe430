"""Expected improvement by its integral, what is promising, and who stays incumbent."""

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from bitwright.search import Learning, Trials
from bitwright.search.strategies.surrogate import Incumbent, SurrogateState, expected_improvement
from bitwright.testing.strategy_contract import LARGE, problem

NUMBERS = st.floats(-3.0, 3.0)


@pytest.mark.slow
@given(NUMBERS, st.floats(0.05, 3.0))
def test_expected_improvement_is_the_mean_of_what_is_gained(gain: float, deviation: float) -> None:
    density, kink = scipy.stats.norm.pdf, max(min(-gain / deviation, 8), -8)
    integral = scipy.integrate.quad(lambda z: max(gain + deviation * z, 0.0) * density(z), -8, 8, points=[kink])[0]
    assert expected_improvement(np.array([gain]), np.array([deviation]))[0] == pytest.approx(integral, abs=1e-7)


def test_a_certain_gain_is_itself_and_a_certain_loss_nothing() -> None:
    assert expected_improvement(np.array([2.0, 0.0, -2.0]), np.zeros(3)).tolist() == [2.0, 0.0, 0.0]


def test_the_promising_come_in_the_order_of_what_they_may_gain() -> None:
    pool = np.arange(5)[:, None] * np.ones((1, 12), dtype=np.int64)
    mean, deviation = np.array([1.0, 0.5, 0.9, 1.1, 1.5]), np.array([0.1, 0.1, 0.1, 1.0, 0.1])

    def predict(choices):
        return mean[choices[:, 0]], deviation[choices[:, 0]]

    def promising(**numbers) -> list[int]:
        belief = SurrogateState(problem(LARGE.space), Learning(predict, lambda *_: predict))
        belief.seen.new(pool[:1])
        return belief.promising(pool, pool[0], **numbers)[:, 0].tolist()

    assert promising(least_gain=-np.inf, n=9) == [1, 3, 2, 4]  # the third is worse but unsure, and the last hopeless
    assert promising(least_gain=-np.inf, n=2) == [1, 3]
    assert promising(least_gain=-2.0, n=9) == [1, 3, 2]
    assert promising(least_gain=0.0, n=9) == [1, 2]


def test_what_was_promising_once_is_not_again() -> None:
    belief = SurrogateState(problem(LARGE.space), Learning(lambda choices: (np.ones(len(choices)), np.ones(len(choices))), lambda *_: None))
    pool = np.eye(12, dtype=np.int64)
    first, second = (belief.promising(pool, pool[0], least_gain=-1.0, n=8) for _ in range(2))
    assert len(first) == 8
    assert len(second) == 4
    assert len(np.unique(np.concatenate([first, second]), axis=0)) == 12


def test_the_incumbent_gives_way_to_what_is_no_worse_and_measured_in_full() -> None:
    choices = np.arange(3)[:, None]
    trials = Trials(choices, np.array([[0.1], [0.5], [0.4]]), np.full((3, 1), 0.01), np.array([3, 8, 8]))
    incumbent = Incumbent(np.array([9]), 0.4)
    assert incumbent.after(trials, 8).choice.tolist() == [2]
    assert Incumbent(np.array([9]), 0.3).after(trials, 8).choice.tolist() == [9]
    assert incumbent.after(trials.only(np.zeros(0, dtype=np.int64)), 8) is incumbent
