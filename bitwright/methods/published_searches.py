"""Published search methods, which measure choices: predictor, strategy and objective.

Their hyperparameters are the published ones; the effort of a search ends them earlier. A method for one budget covers a front by evenly spaced
budgets, one after the other.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.methods.method import Method, evenly_spaced_budgets
from bitwright.methods.published_tables import FREE, bracket, single_choice
from bitwright.objectives import ClampedJensenShannon, KullbackLeibler, TokenObjective
from bitwright.predictors import random_orders, shapley_marginals
from bitwright.progress import Silent
from bitwright.search import (
    Learning,
    Problem,
    Rounds,
    SequentialStrategy,
    SpdyOptions,
    Strategy,
    Tied,
    TrustRegionOptions,
    clustered,
    evopress,
    predicted_front,
    quantization,
    solve_quadratic,
    spdy_search,
    turbo,
    two_tiers,
)
from bitwright.spaces import Choice, Choices, Format, Space, by_layer, tied

_PINNED = 2.0  # AMQ: times the median
_PERMUTATIONS = 8


def within_budget(name: str, source: str, differs: str, *, objective: TokenObjective, for_budget: Callable[[Problem, int], Strategy]) -> Method:
    """Return a method that searches for one budget at a time."""

    def for_front(problem: Problem, n_points: int) -> Strategy:
        return SequentialStrategy(for_budget(problem, bits) for bits in evenly_spaced_budgets(problem, n_points))

    return Method(name, source, differs, objective, for_budget, for_front, sensitivity=FREE)


def whole_front(name: str, source: str, differs: str, *, objective: TokenObjective, for_front: Callable[[Problem], Strategy]) -> Method:
    """Return a method that searches the whole front, whatever the budget."""
    return Method(name, source, differs, objective, lambda problem, _: for_front(problem), lambda problem, _: for_front(problem), sensitivity=FREE)


def _amq(problem: Problem) -> Strategy:
    space = _without_outliers(problem)
    return predicted_front(replace(problem.unstarted, space=space), problem.refit("rbf", space), Rounds(design=clustered))


def _without_outliers(problem: Problem) -> Space:
    """Fix at the largest format the units whose loss in the smallest format, all others in the largest, exceeds twice the median."""
    space = problem.space
    largest, smallest = space.largest(), space.smallest()
    drops = np.array([problem.measure(_with(largest, unit, smallest)) for unit in range(len(largest))])
    offered = space.offered.copy()
    for unit in np.flatnonzero(drops > _PINNED * np.median(drops)):
        offered[unit] = np.arange(len(space.formats)) == largest[unit]
    return space.narrowed(offered)


def _with(choice: NDArray[np.int64], unit: int, other: NDArray[np.int64]) -> NDArray[np.int64]:
    changed = choice.copy()
    changed[unit] = other[unit]
    return changed


def _qpruner(problem: Problem, budget_bits: int) -> Strategy:
    """Search layers in two formats: first those of highest mutual information get the finer one, then by expected improvement over all choices within
    the budget.
    """
    tie = tied(problem.space, by_layer)
    high, low = bracket(tie.coarse, budget_bits)
    space = _in_formats(tie.coarse, (high, low))
    start = two_tiers(space, problem.score("information", tie.coarse), budget_bits, high=high, low=low)
    inner = Problem(space, start[None], problem.n_sequences, problem.seed)
    return Tied(
        turbo(inner, budget_bits, Learning(_flat, problem.refit("gp-bits", space), 10, 5), TrustRegionOptions(float(len(start)), n_at_once=1)), tie
    )


def _in_formats(space: Space, formats: tuple[Format, ...]) -> Space:
    """Restrict the space to some formats and to the units that are offered all of them."""
    return space.narrowed(space.offered & np.array([form in formats for form in space.formats]))


def _flat(choices: Choices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predict nothing: mean 0 and standard deviation 1."""
    return np.zeros(len(choices)), np.ones(len(choices))


def _coopq(problem: Problem, budget_bits: int) -> Choice:
    space = problem.space
    high, low = bracket(space, budget_bits)
    orders = random_orders(len(space.units), _PERMUTATIONS, rng=problem.random())
    found = shapley_marginals(problem.measure, high=space.uniform(high), low=space.uniform(low), orders=orders, progress=Silent())
    linear, matrix = found.interactions()
    table = np.zeros(space.offered.shape)
    table[:, space.formats.index(low)] = linear
    return solve_quadratic(_in_formats(space, (high, low)), table, budget_bits, form=low, matrix=matrix).choice


def _spdy(problem: Problem, budget_bits: int) -> Strategy:
    return spdy_search(problem.unstarted, budget_bits, table=problem.price("surgeon"), numbers=SpdyOptions())


def _automixq(problem: Problem) -> Strategy:
    return predicted_front(problem.unstarted, problem.refit("mlp", problem.space), Rounds(n_first=60, n_rounds=10, n_each=10, design=clustered))


BY_SEARCHES = (
    whole_front(
        "amq",
        "AMQ (Lee et al., EMNLP 2025, arXiv 2509.12019): pins, 250 + 200 × 50 evaluations, cubic RBF, NSGA-II, spread picks",
        "Genes mutate one by one (the released code draws a new individual); picks are the most even ones exactly; the codec is the run's own.",
        objective=ClampedJensenShannon(),
        for_front=_amq,
    ),
    within_budget(
        "evopress",
        "EvoPress (Sieberling et al., ICML 2025, arXiv 2410.14649): (1+λ) evolution from random allocations at the budget, 150 × 128 "
        "offspring, three stages of growing text",
        "All candidates read the same first sequences, so that differences are paired; 16 allocations are drawn at first, a number not published.",
        objective=KullbackLeibler(),
        for_budget=lambda problem, bits: evopress(problem.unstarted, bits, quantization(problem.sequence_length)),
    ),
    within_budget(
        "qpruner",
        "QPruner (2024, arXiv 2412.11629): layers in two formats by mutual information, then Bayesian optimisation of the bits with a "
        "Gaussian process",
        "Nothing is pruned or healed; the formats are the two around the budget (4 and 8 bits there); the objective is the divergence, candidates "
        "keep the budget, and the process, with a Matérn kernel, is fitted anew after every five.",
        objective=KullbackLeibler(),
        for_budget=_qpruner,
    ),
    replace(
        within_budget(
            "spdy",
            "SPDY (Frantar & Alistarh, ICML 2022, arXiv 2201.13096): coefficients of layer losses, 100 at random and then local search",
            "Candidates are scored by their divergence; the exact knapsack takes the place of the programme in buckets.",
            objective=KullbackLeibler(),
            for_budget=_spdy,
        ),
        sensitivity="surgeon",
    ),
    replace(
        single_choice(
            "coopq",
            "CoopQ (ACL Findings 2026): Shapley values and their covariance from all-high to all-low, a quadratic programme",
            "8 permutations and not 100, each as many evaluations as there are units; the two formats are those around the budget.",
            _coopq,
        ),
        sensitivity=FREE,
    ),
    whole_front(
        "automixq",
        "AutoMixQ (2024, arXiv 2411.13814): sampled configurations, light performance models, Pareto selection",
        "Nothing is pruned or healed; the model is an MLP on the choices, refitted after every ten evaluations.",
        objective=KullbackLeibler(),
        for_front=_automixq,
    ),
)
