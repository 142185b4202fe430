"""Baseline methods: random choices, greedy marginal analysis, local search, and the optimisers of Optuna and BoTorch.

None of them is a complete published method. Those that use a sensitivity table take the run's own, free of charge, as `auto` does.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.methods.method import Method, evenly_spaced_budgets, refit_of_run
from bitwright.methods.published_tables import FREE
from bitwright.objectives import KullbackLeibler
from bitwright.search import (
    Learning,
    LocalSearchOptions,
    NehviOptions,
    Predict,
    Problem,
    SequentialStrategy,
    Solution,
    Strategy,
    demote,
    given,
    nehvi_front,
    nsga2,
    nsga2_front,
    promote,
    random_front,
    random_mixes,
    random_within,
    swaps,
    tpe,
)
from bitwright.spaces import Choice, Choices, Space

_MOST = 10_000  # upper bound on choices; the effort ends a search earlier
_MOST_OF_OPTUNA = 2_000  # beyond this, proposing takes longer than measuring
_LEARNT_FIRST, _LEARNT_AGAIN = 4, 8  # choices measured before the predictor is first refitted, and between refits


def _greedy(name: str, source: str, solver: Callable[[Space, NDArray[np.float64], int], Solution]) -> Method:
    """Return a method that measures one choice, the result of a greedy solver on the run's table."""

    def answer(problem: Problem, budget_bits: int) -> Choice:
        return solver(problem.space, problem.tables[0], budget_bits).choice

    def for_budget(problem: Problem, budget_bits: int) -> Strategy:
        return given(problem, answer(problem, budget_bits)[None])

    def for_front(problem: Problem, n_points: int) -> Strategy:
        return given(problem, np.unique([answer(problem, bits) for bits in evenly_spaced_budgets(problem, n_points)], axis=0))

    return Method(name, source, "", KullbackLeibler(), for_budget, for_front, takes_cache_types=True)


def _by_table(problem: Problem) -> Predict:
    """Return a predictor that sums the run's table over a choice, in the table's units, with a standard deviation equal to the mean."""
    table, units = problem.tables[0], np.arange(len(problem.space.units))

    def predict(choices: Choices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        total: NDArray[np.float64] = table[units, choices].sum(axis=1)
        return total, total

    return predict


def _local_search(problem: Problem, budget_bits: int) -> Strategy:
    learning = Learning(_by_table(problem), refit_of_run(problem), _LEARNT_FIRST, _LEARNT_AGAIN)
    return swaps(problem, budget_bits, learning, LocalSearchOptions())


def _local_search_along(problem: Problem, n_points: int) -> Strategy:
    return SequentialStrategy(_local_search(problem, bits) for bits in evenly_spaced_budgets(problem, n_points))


def _mixes(problem: Problem, budget_bits: int) -> Strategy:
    return random_mixes(problem.unstarted, budget_bits, n=_MOST)


def _tpe(problem: Problem, budget_bits: int) -> Strategy:
    return tpe(problem, budget_bits, n=_MOST_OF_OPTUNA)


def _whole(problem: Problem) -> int:
    """Return the size of the largest file in bits, a budget that excludes nothing."""
    return int(problem.space.total_bits(problem.space.largest()))


BASELINES = (
    Method(
        "random",
        "random choices that use up the budget, all of one size equally likely (a Boltzmann sampler)",
        "",
        KullbackLeibler(),
        lambda problem, budget_bits: random_within(problem.unstarted, budget_bits, n=_MOST),
        lambda problem, _: random_front(problem.unstarted, n=_MOST),
        sensitivity=FREE,
        takes_cache_types=True,
    ),
    Method(
        "random-mix",
        "random mixes of the two uniform allocations around the budget, the usual baseline of the field",
        "",
        KullbackLeibler(),
        _mixes,
        lambda problem, n_points: SequentialStrategy(_mixes(problem, bits) for bits in evenly_spaced_budgets(problem, n_points)),
        sensitivity=FREE,
    ),
    _greedy("greedy", "marginal analysis (Fox, 1966): from the smallest file up, a format at a time, by the run's table", promote),
    _greedy("greedy-down", "marginal analysis from the largest file down, as QVLA (arXiv 2602.03782) demotes channels", demote),
    Method(
        "local-search",
        "iterated local search (Lourenço, Martin & Stützle, 2003): exchanges between units, ordered by the run's table and a ridge regression",
        "",
        KullbackLeibler(),
        _local_search,
        _local_search_along,
        takes_cache_types=True,
    ),
    Method(
        "tpe",
        "Optuna's multivariate TPE (Bergstra et al., NeurIPS 2011)",
        "Units of a proposal above the budget are lowered at random until it fits.",
        KullbackLeibler(),
        _tpe,
        lambda problem, n_points: SequentialStrategy(_tpe(problem, bits) for bits in evenly_spaced_budgets(problem, n_points)),
        sensitivity=FREE,
        takes_cache_types=True,
        libraries=("optuna",),
    ),
    Method(
        "nsga2",
        "Optuna's NSGA-II with constrained domination, as KVTuner uses it (Li et al., ICML 2025, arXiv 2502.04420)",
        "Choices above the budget are never measured; the initial population holds uniform allocations, and for a front choices of all sizes.",
        KullbackLeibler(),
        lambda problem, budget_bits: nsga2(problem, budget_bits, n=_MOST_OF_OPTUNA),
        lambda problem, _: nsga2_front(problem, _whole(problem), n=_MOST_OF_OPTUNA),
        sensitivity=FREE,
        takes_cache_types=True,
        libraries=("optuna",),
    ),
    Method(
        "nehvi",
        "BoTorch's noisy expected hypervolume improvement (Daulton et al., NeurIPS 2021; Ament et al., NeurIPS 2023) around the run's table",
        "The whole front is searched, whatever the budget; candidates are picked from a pool around the measured front.",
        KullbackLeibler(),
        lambda problem, _: nehvi_front(problem, _by_table(problem), NehviOptions()),
        lambda problem, _: nehvi_front(problem, _by_table(problem), NehviOptions()),
        takes_cache_types=True,
        libraries=("botorch", "gpytorch"),
    ),
)
