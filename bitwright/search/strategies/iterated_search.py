"""Iterated search within a budget: descend to a local optimum, perturb the best choice, and descend again.

Lourenço, Martin & Stützle, "Iterated Local Search", Handbook of Metaheuristics, 2003. Each strategy has a descent of its own.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from bitwright.search.strategies.generator_strategy import Asking, GeneratorStrategy
from bitwright.search.strategies.neighbours import Neighbourhood, all_together
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.random_choices import starting
from bitwright.search.strategies.strategy import Question, Strategy, Trials
from bitwright.search.strategies.surrogate import Incumbent, Learning, SurrogateState
from bitwright.spaces import Choice, Choices


@dataclass(frozen=True, eq=False)
class Descent:
    """State of a search that its descents share: the `belief` learnt so far, the neighbours `near` a choice within the budget, and the generator."""

    belief: SurrogateState
    near: Neighbourhood
    rng: np.random.Generator


#: the shared state and an incumbent -> the local optimum found from there
Descend = Callable[[Descent, Incumbent], Generator[Question, Trials, Incumbent]]


def iterated_search(problem: Problem, budget_bits: int, learning: Learning, descend: Descend, *, n_kicks: int, n_restarts: int) -> Strategy:
    """Return the strategy that descends from the best of `problem.start` that fits, or from a random mix near to uniform, then `n_restarts` times
    from a perturbation of the best choice so far by `n_kicks` mutations, while new ones come.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    near, start = Neighbourhood(problem.space, budget_bits, all_together), starting(problem, budget_bits)
    state = Descent(SurrogateState(problem, learning), near, problem.random())
    asking = iterated(
        state.belief,
        start,
        lambda incumbent: descend(state, incumbent),
        lambda choice: state.belief.seen.drawn(partial(near.walked, choice, n_kicks), state.rng),
        n_restarts=n_restarts,
    )
    return GeneratorStrategy(problem, asking)


def iterated(
    belief: SurrogateState,
    start: Choices,
    descend: Callable[[Incumbent], Generator[Question, Trials, Incumbent]],
    kick: Callable[[Choice], Iterator[Choice]],
    *,
    n_restarts: int,
) -> Asking:
    """Descend from the best of `start` `(n, n_units)`, then `n_restarts` times from a perturbation of the best choice so far, while `kick` has new
    ones near it.
    """
    best = yield from belief.measured(belief.seen.new(start), Incumbent(start[0], np.inf))
    best = yield from descend(best)
    for _ in range(n_restarts):
        kicked = next(kick(best.choice), None)
        if kicked is None:
            return
        found = yield from belief.measured(kicked[None], Incumbent(kicked, np.inf))
        found = yield from descend(found)
        best = min(best, found, key=lambda incumbent: incumbent.value)
