"""Declaration of a search method: how it turns a problem into a strategy."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bitwright.objectives import KullbackLeibler, TokenObjective
from bitwright.search import Problem, Refit, Strategy, auto, auto_front
from bitwright.spaces import Space

#: the predictor of searches that name none
PREDICTOR = "ridge"


def any_space(space: Space) -> None:
    """Accept every space."""


@dataclass(frozen=True, eq=False)
class Method:
    """Search method, published or of this project. `for_budget` returns its strategy for a budget in bits of the whole file, `for_front` its strategy
    for the whole front with so many initial points.

    `source` is the paper and `differs` a sentence on how this implementation differs from it, empty if it does not. `objective` is the objective that
    it measures, `steps` are its default post-quantization steps, see `Settings.steps`. `sensitivity` is the proxy of a run whose only plan is this
    method's, empty if the method uses the run's own table. `takes_side_limits`: its choices satisfy `Problem.rows`. `takes_cache_types`: it chooses
    cache types together with the weights. `libraries` are the optional packages that it needs. `require_space` raises a `UserError` for a space that
    it cannot decide about, before anything is measured.
    """

    name: str
    source: str
    differs: str
    objective: TokenObjective
    for_budget: Callable[[Problem, int], Strategy]
    for_front: Callable[[Problem, int], Strategy]
    steps: tuple[str, ...] = ()
    sensitivity: str = ""
    takes_side_limits: bool = False
    takes_cache_types: bool = False
    libraries: tuple[str, ...] = ()
    require_space: Callable[[Space], None] = any_space


def refit_of_run(problem: Problem) -> Refit:
    """Return the fit function of the default predictor for the run's own space."""
    return problem.refit(PREDICTOR, problem.space)


def evenly_spaced_budgets(problem: Problem, n_points: int) -> list[int]:
    """Return `n_points` budgets in bits of the whole file, evenly spaced from the smallest to the largest choice: the front of a method that takes
    one budget.
    """
    space = problem.space
    smallest, largest = (int(space.total_bits(choice)) for choice in (space.smallest(), space.largest()))
    return [int(bits) for bits in np.linspace(smallest, largest, n_points)]


AUTO = Method(
    name="auto",
    source="this project; docs/search.md",
    differs="",
    objective=KullbackLeibler(),
    for_budget=lambda problem, budget_bits: auto(problem, budget_bits, tables=problem.tables, refit=refit_of_run(problem), expand=problem.expand),
    for_front=lambda problem, n_points: auto_front(problem, table=problem.tables[0], refit=refit_of_run(problem), n_points=n_points),
    takes_side_limits=True,
    takes_cache_types=True,
)
