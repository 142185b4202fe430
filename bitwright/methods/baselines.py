"""Baseline methods: random choices, greedy marginal analysis, local search, and the optimisers of Optuna and BoTorch.

None of them is a complete published method. Those that use a sensitivity table take the run's own, free of charge, as `auto` does.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.methods.method import Method, MethodContext, evenly_spaced_budgets, refit_of_run
from bitwright.methods.published_tables import FREE
from bitwright.objectives import KullbackLeibler
from bitwright.search import (
    Learning,
    LocalSearchOptions,
    NehviOptions,
    Predict,
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

    def answer(context: MethodContext, budget_bits: int) -> Choice:
        return solver(context.problem.space, context.tables[0], budget_bits).choice

    def for_budget(context: MethodContext, budget_bits: int) -> Strategy:
        return given(context.problem, answer(context, budget_bits)[None])

    def for_front(context: MethodContext, n_points: int) -> Strategy:
        return given(context.problem, np.unique([answer(context, bits) for bits in evenly_spaced_budgets(context, n_points)], axis=0))

    return Method(name, source, "", KullbackLeibler(), for_budget, for_front, takes_cache_types=True)


def _by_table(context: MethodContext) -> Predict:
    """Return a predictor that sums the run's table over a choice, in the table's units, with a standard deviation equal to the mean."""
    table, units = context.tables[0], np.arange(len(context.problem.space.units))

    def predict(choices: Choices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        total: NDArray[np.float64] = table[units, choices].sum(axis=1)
        return total, total

    return predict


def _local_search(context: MethodContext, budget_bits: int) -> Strategy:
    learning = Learning(_by_table(context), refit_of_run(context), _LEARNT_FIRST, _LEARNT_AGAIN)
    return swaps(context.problem, budget_bits, learning, LocalSearchOptions())


def _local_search_along(context: MethodContext, n_points: int) -> Strategy:
    return SequentialStrategy(_local_search(context, bits) for bits in evenly_spaced_budgets(context, n_points))


def _mixes(context: MethodContext, budget_bits: int) -> Strategy:
    return random_mixes(context.unstarted, budget_bits, n=_MOST)


def _tpe(context: MethodContext, budget_bits: int) -> Strategy:
    return tpe(context.problem, budget_bits, n=_MOST_OF_OPTUNA)


def _whole(context: MethodContext) -> int:
    """Return the size of the largest file in bits, a budget that excludes nothing."""
    return int(context.problem.space.total_bits(context.problem.space.largest()))


BASELINES = (
    Method(
        "random",
        "random choices that use up the budget, all of one size equally likely (a Boltzmann sampler)",
        "",
        KullbackLeibler(),
        lambda context, budget_bits: random_within(context.unstarted, budget_bits, n=_MOST),
        lambda context, _: random_front(context.unstarted, n=_MOST),
        sensitivity=FREE,
        takes_cache_types=True,
    ),
    Method(
        "random-mix",
        "random mixes of the two uniform allocations around the budget, the usual baseline of the field",
        "",
        KullbackLeibler(),
        _mixes,
        lambda context, n_points: SequentialStrategy(_mixes(context, bits) for bits in evenly_spaced_budgets(context, n_points)),
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
        lambda context, n_points: SequentialStrategy(_tpe(context, bits) for bits in evenly_spaced_budgets(context, n_points)),
        sensitivity=FREE,
        takes_cache_types=True,
        libraries=("optuna",),
    ),
    Method(
        "nsga2",
        "Optuna's NSGA-II with constrained domination, as KVTuner uses it (Li et al., ICML 2025, arXiv 2502.04420)",
        "Choices above the budget are never measured; the initial population holds uniform allocations, and for a front choices of all sizes.",
        KullbackLeibler(),
        lambda context, budget_bits: nsga2(context.problem, budget_bits, n=_MOST_OF_OPTUNA),
        lambda context, _: nsga2_front(context.problem, _whole(context), n=_MOST_OF_OPTUNA),
        sensitivity=FREE,
        takes_cache_types=True,
        libraries=("optuna",),
    ),
    Method(
        "nehvi",
        "BoTorch's noisy expected hypervolume improvement (Daulton et al., NeurIPS 2021; Ament et al., NeurIPS 2023) around the run's table",
        "The whole front is searched, whatever the budget; candidates are picked from a pool around the measured front.",
        KullbackLeibler(),
        lambda context, _: nehvi_front(context.problem, _by_table(context), NehviOptions()),
        lambda context, _: nehvi_front(context.problem, _by_table(context), NehviOptions()),
        takes_cache_types=True,
        libraries=("botorch", "gpytorch"),
    ),
)
