"""What is decided before anything is measured, as a strategy: it asks for the answer of a table, so that it is measured like everybody else's."""

from bitwright.search.strategies.generator_strategy import Asking, Course, Problem
from bitwright.search.strategies.strategy import Strategy, asked
from bitwright.spaces import Choices


def given(problem: Problem, choices: Choices) -> Strategy:
    """Asks for `choices` `(n, n_units)` in full and for nothing else."""
    return Course(problem, _asking(problem, choices))


def _asking(problem: Problem, choices: Choices) -> Asking:
    if len(choices):
        yield asked(choices, problem.n_sequences)
