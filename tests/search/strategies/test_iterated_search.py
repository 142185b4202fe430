"""Descents and perturbations in turn, from the best so far."""

from collections.abc import Generator

import numpy as np

from bitwright.search import Learning, Question, Trials
from bitwright.search.strategies.generator_strategy import GeneratorStrategy
from bitwright.search.strategies.iterated_search import iterated
from bitwright.search.strategies.surrogate import Incumbent, SurrogateState
from bitwright.testing.strategy_contract import LARGE, problem, searched


def test_every_descent_but_the_first_begins_near_the_best_so_far() -> None:
    """Descents end after a value of 1, 3, 0 and 2; a kick adds one to the first unit."""
    begun: list[int] = []
    ends = iter([1.0, 3.0, 0.0, 2.0])
    belief = SurrogateState(
        problem(LARGE.space), Learning(lambda choices: (np.ones(len(choices)), np.ones(len(choices))), lambda *_: None, n_first=99)
    )

    def descend(incumbent: Incumbent) -> Generator[Question, Trials, Incumbent]:
        begun.append(int(incumbent.choice[0]))
        yield from ()
        return Incumbent(incumbent.choice + 10, next(ends))

    asking = iterated(belief, np.zeros((1, 12), dtype=np.int64), descend, lambda choice: iter([choice + 1]), n_restarts=3)
    searched(GeneratorStrategy(problem(LARGE.space), asking), lambda choices, _: np.full(len(choices), 9.0), n=99)
    assert begun == [0, 11, 11, 22]  # behind 0 + 10 twice, and then behind 11 + 10
