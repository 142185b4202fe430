"""Bayesian optimisation within a trust region (TuRBO) around the best choice for one budget.

The region is a Hamming ball: at most so many units may differ from the incumbent. It grows after successes and shrinks after failures as in
TuRBO (Eriksson et al., "Scalable Global Optimization via Local Bayesian Optimization", NeurIPS 2019), for categories as in CASMOPOLITAN (Wan et al.,
"Think Global and Act Local", ICML 2021). Within it the choices of largest expected improvement (Jones, Schonlau & Welch, Journal of Global
Optimization 13, 1998) over a random pool within the budget are measured. What differs: the posterior is the prediction passed in; a region that
has collapsed restarts around a perturbation of the best choice, not at a random one; a new region keeps all trials.
"""

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

import numpy as np

from bitwright.search.strategies.iterated_search import Descent, iterated_search
from bitwright.search.strategies.neighbours import Neighbourhood
from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.strategy import Question, Strategy, Trials
from bitwright.search.strategies.surrogate import Incumbent, Learning
from bitwright.spaces import Choice, Choices

_SMALLEST = 2.0  # units: an exchange needs two


@dataclass(frozen=True)
class TrustRegionOptions:
    """Hyperparameters.

    The first region has a radius of `radius` units around the incumbent. After `n_successes` questions in a row with an improvement it grows by half,
    after `n_failures` without one it shrinks to two thirds. Below two units, which an exchange needs, it restarts from a perturbation of `n_kicks`
    mutations, `n_restarts` times. `n_at_once` choices are measured at a time, from a pool of at most `n_pairs` exchanges between two units and
    `n_walks` random walks.
    """

    radius: float = 8.0
    n_successes: int = 3
    n_failures: int = 8
    n_at_once: int = 4
    n_pairs: int = 1_000
    n_walks: int = 500
    n_kicks: int = 3
    n_restarts: int = 1_000


def turbo(problem: Problem, budget_bits: int, learning: Learning, region: TrustRegionOptions) -> Strategy:
    """Return the strategy of trust-region search within a budget, from the best of `problem.start` that fits, or from a random mix near to uniform.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    return iterated_search(problem, budget_bits, learning, partial(_within, region), n_kicks=region.n_kicks, n_restarts=region.n_restarts)


def _within(region: TrustRegionOptions, state: Descent, incumbent: Incumbent) -> Generator[Question, Trials, Incumbent]:
    """Search one region until it has collapsed; return the best choice."""
    belief, near, rng = state.belief, state.near, state.rng
    radius, n_successes, n_failures = region.radius, 0, 0
    while radius >= _SMALLEST:
        candidates = belief.promising(
            _pool(near, region, incumbent.choice, radius=radius, rng=rng), incumbent.choice, least_gain=-np.inf, n=region.n_at_once
        )
        if not len(candidates):
            break
        better = yield from belief.measured(candidates, incumbent)
        success = better.value < incumbent.value
        n_successes, n_failures, incumbent = (n_successes + 1, 0, better) if success else (0, n_failures + 1, better)
        if n_successes == region.n_successes:
            radius, n_successes = min(1.5 * radius, len(incumbent.choice)), 0
        elif n_failures == region.n_failures:
            radius, n_failures = radius / 1.5, 0
    return incumbent


def _pool(near: Neighbourhood, region: TrustRegionOptions, choice: Choice, *, radius: float, rng: np.random.Generator) -> Choices:
    """Return exchanges between two units, and random walks that end within the radius: `(n, n_units)`."""
    lengths = rng.integers(1, max(int(radius) // 2, 1) + 1, size=region.n_walks)
    walks = np.array([near.walked(choice, n, rng) for n in lengths], dtype=np.int64).reshape(-1, len(choice))
    pool: Choices = np.concatenate([near.swaps(choice, n_at_most=region.n_pairs, rng=rng), walks])
    near_enough: Choices = pool[(pool != choice).sum(axis=1) <= radius]  # includes the choice itself, which is already seen
    return near_enough
