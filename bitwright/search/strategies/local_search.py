"""Iterated local search: exchange bits between units as long as that improves the incumbent, then restart from a perturbation.

Neighbours are measured in the order of expected improvement under a predictor, and hopeless ones are skipped; the first better one becomes the
incumbent (first improvement). When no neighbour is left, the best choice is perturbed by a few random exchanges and the search restarts from there
(Lourenço, Martin & Stützle, "Iterated Local Search", Handbook of Metaheuristics, 2003). With a large number of evaluations it serves as the
reference for cheaper searches.
"""

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

import numpy as np

from bitwright.search.strategies.iterated_search import Descent, iterated_search
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.strategy import Question, Strategy, Trials
from bitwright.search.strategies.surrogate import Incumbent, Learning


@dataclass(frozen=True)
class LocalSearchOptions:
    """Hyperparameters.

    At most `n_pairs` exchanges between two units are considered, and `n_mutants` between several. `n_at_once` neighbours are measured at a time.
    Neighbours expected to gain less than `least_gain` standard deviations are skipped. After `patience` measurements without improvement, or when no
    neighbour is left, the best choice is perturbed by `n_kicks` mutations, `n_restarts` times.
    """

    n_pairs: int = 2_000
    n_mutants: int = 500
    n_at_once: int = 4
    least_gain: float = -2.0
    patience: int = 100
    n_kicks: int = 3
    n_restarts: int = 1_000


def swaps(problem: Problem, budget_bits: int, learning: Learning, numbers: LocalSearchOptions) -> Strategy:
    """Return the strategy of local search within a budget, from the best of `problem.start` that fits, or from a random mix near to uniform.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    return iterated_search(problem, budget_bits, learning, partial(_descent, numbers), n_kicks=numbers.n_kicks, n_restarts=numbers.n_restarts)


def _descent(numbers: LocalSearchOptions, state: Descent, incumbent: Incumbent) -> Generator[Question, Trials, Incumbent]:
    """Measure neighbours of the incumbent, moving to the first better one, until none is left; return the last incumbent."""
    belief, near, rng = state.belief, state.near, state.rng
    in_vain = 0
    while in_vain < numbers.patience:
        pool = np.concatenate(
            [
                near.swaps(incumbent.choice, n_at_most=numbers.n_pairs, rng=rng),
                *(near.mutated(incumbent.choice, rng)[None] for _ in range(numbers.n_mutants)),
            ]
        )
        candidates = belief.promising(pool, incumbent.choice, least_gain=numbers.least_gain, n=numbers.n_at_once)
        if not len(candidates):
            break
        better = yield from belief.measured(candidates, incumbent)
        in_vain = 0 if better.value < incumbent.value else in_vain + len(candidates)
        incumbent = better
    return incumbent
