"""A strategy of groups, asked about units."""

import numpy as np

from bitwright.search import Problem, Tied, Trials
from bitwright.search.strategies.generator_strategy import GeneratorStrategy
from bitwright.search.strategies.strategy import asked
from bitwright.spaces import tied
from tests.search.instances import space_of


def test_what_is_asked_is_expanded_and_what_is_told_reduced() -> None:
    tie = tied(space_of([[8, 16]] * 4, [[True, True]] * 4), lambda unit: unit.layer // 2)
    told: list[Trials] = []

    def asking():
        told.append((yield asked(np.array([[0, 1], [1, 0]]), 5)))

    inner = GeneratorStrategy(Problem(tie.coarse, np.zeros((0, 2), dtype=np.int64), 5, 0), asking())
    strategy = Tied(inner, tie)
    question = strategy.ask()
    assert question.choices.tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    assert question.against.shape == (0, 4)
    strategy.tell(Trials(question.choices, np.array([[1.0], [2.0]]), np.zeros((2, 1)), np.full(2, 5)))
    assert strategy.ask().is_last
    assert told[0].choices.tolist() == [[0, 1], [1, 0]]
    assert told[0].values.tolist() == [[1.0], [2.0]]
