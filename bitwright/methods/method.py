"""Declaration of a search method, and the context in which it runs."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import KullbackLeibler, TokenObjective
from bitwright.search import Expand, Problem, Refit, Strategy, auto, auto_front
from bitwright.spaces import Choice, Space

Table = NDArray[np.float64]
#: the predictor of searches that name none
PREDICTOR = "ridge"


@dataclass(frozen=True, eq=False)
class MethodContext:
    """Problem, prior knowledge and measuring functions that a method works with.

    `problem` has the space, the initial choices (the best uniform allocations among them), the seed and the side constraints. `tables` are the run's
    sensitivity table `(n_units, n_formats)` and a second one, whose optimum is worth measuring too. `refit` returns the named predictor for a space,
    `price` the sensitivity table `(n_units, n_formats)` of a proxy, and `score` the scores `(n_units,)` of a proxy, higher for more important units;
    tied units have one score. Tables and scores are computed on first use and cached, and the tokens they read count once towards the effort.
    `measure` returns the divergence of a choice on the whole calibration text, in nats per token, and counts too. A sequence has `sequence_length`
    tokens. `expand`, where the run has gradients, returns slopes and curvatures at a choice, see `Expand`.
    """

    problem: Problem
    tables: tuple[Table, ...]
    refit: Callable[[str, Space], Refit]
    price: Callable[[str], Table]
    score: Callable[[str, Space], NDArray[np.float64]]
    measure: Callable[[Choice], float]
    sequence_length: int
    expand: Expand | None = None

    @property
    def unstarted(self) -> Problem:
        """Problem without initial choices, for a method that has none."""
        return replace(self.problem, start=self.problem.start[:0])


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
    for_budget: Callable[[MethodContext, int], Strategy]
    for_front: Callable[[MethodContext, int], Strategy]
    steps: tuple[str, ...] = ()
    sensitivity: str = ""
    takes_side_limits: bool = False
    takes_cache_types: bool = False
    libraries: tuple[str, ...] = ()
    require_space: Callable[[Space], None] = any_space


def refit_of_run(context: MethodContext) -> Refit:
    """Return the fit function of the default predictor for the run's own space."""
    return context.refit(PREDICTOR, context.problem.space)


def evenly_spaced_budgets(context: MethodContext, n_points: int) -> list[int]:
    """Return `n_points` budgets in bits of the whole file, evenly spaced from the smallest to the largest choice: the front of a method that takes
    one budget.
    """
    space = context.problem.space
    smallest, largest = (int(space.total_bits(choice)) for choice in (space.smallest(), space.largest()))
    return [int(bits) for bits in np.linspace(smallest, largest, n_points)]


AUTO = Method(
    name="auto",
    source="this project; docs/search.md",
    differs="",
    objective=KullbackLeibler(),
    for_budget=lambda context, budget_bits: auto(
        context.problem, budget_bits, tables=context.tables, refit=refit_of_run(context), expand=context.expand
    ),
    for_front=lambda context, n_points: auto_front(context.problem, table=context.tables[0], refit=refit_of_run(context), n_points=n_points),
    takes_side_limits=True,
    takes_cache_types=True,
)
