"""Strategy of fixed choices: measures the solution of a table-only method in the same way as any search."""

from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.strategy import Strategy, asked
from bitwright.spaces import Choices


def given(problem: Problem, choices: Choices) -> Strategy:
    """Return the strategy that asks for `choices` `(n, n_units)` in full and for nothing else."""
    return GeneratorStrategy(problem, _asking(problem, choices))


def _asking(problem: Problem, choices: Choices) -> Asking:
    if len(choices):
        yield asked(choices, problem.n_sequences)
