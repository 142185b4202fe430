import numpy as np
import pytest

from bitwright.search import Problem, SequentialStrategy, Trials, given
from tests.search.instances import space_of


def test_asks_what_it_was_given_and_nothing_else() -> None:
    problem = Problem(space_of([[8, 16]] * 3, [[True, True]] * 3), np.zeros((0, 3), dtype=np.int64), 7, 0)
    choices = np.array([[0, 1, 0], [1, 1, 0]])
    strategy = given(problem, choices)
    assert strategy.ask().choices.tolist() == choices.tolist()
    assert strategy.ask().n_sequences == 7
    strategy.tell(Trials(choices, np.ones((2, 1)), np.ones((2, 1)), np.full(2, 7)))
    assert strategy.ask().is_last
    assert given(problem, choices[:0]).ask().is_last


def test_strategies_take_turns_until_the_last_has_finished() -> None:
    problem = Problem(space_of([[8, 16]] * 2, [[True, True]] * 2), np.zeros((0, 2), dtype=np.int64), 7, 0)
    first, second = np.array([[0, 1]]), np.array([[1, 1]])
    strategy = SequentialStrategy(given(problem, choices) for choices in (first, first[:0], second))
    for choices in (first, second):
        assert strategy.ask().choices.tolist() == choices.tolist()
        strategy.tell(Trials(choices, np.ones((1, 1)), np.ones((1, 1)), np.full(1, 7)))
    assert strategy.ask().is_last
    with pytest.raises(ValueError, match="at least one"):
        SequentialStrategy([])
