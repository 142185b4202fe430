"""A search method: a declaration of parts, and what it is given to work with."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import KullbackLeibler, TokenObjective
from bitwright.search import Knowledge, Problem, Refit, Strategy, auto, auto_front
from bitwright.spaces import Choice, Space

Table = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sought:
    """What a method works with.

    `problem` has the space, the choices worth measuring first (the best uniform allocations among them), the seed, and the side rows; `knowledge` the
    run's table and how to learn. `refit` is how the predictor of a name learns about the choices of a space, `price` the table `(n_units, n_formats)`
    of a proxy, and `score` the scores `(n_units,)` of a proxy for the units of a space, high where a unit is important; units that are tied together
    are scored together. A table and scores are computed when they are first asked for and then kept, and what that reads is counted once.
    `measure` gives the divergence of a choice on all of the text, which is counted too. A sequence has `sequence_length` tokens.
    """

    problem: Problem
    knowledge: Knowledge
    refit: Callable[[str, Space], Refit]
    price: Callable[[str], Table]
    score: Callable[[str, Space], NDArray[np.float64]]
    measure: Callable[[Choice], float]
    sequence_length: int

    @property
    def unstarted(self) -> Problem:
        """The problem without choices to measure first, for a method that has none."""
        return replace(self.problem, start=self.problem.start[:0])


@dataclass(frozen=True, eq=False)
class Method:
    """A search as published or as meant here: `within` a budget in bits of the whole file, and `along` the front with so many points to begin with.

    `source` is the paper, `differs` what is done otherwise than there, in a sentence, empty where nothing is. `objective` is what it measures, and
    `steps` are what it has follow the formats where nobody says, see `Settings.steps`. `sensitivity` is the proxy that a run is priced by where
    nothing but this method's own plan is to ship, empty where the method learns from the run's own table. `takes_side_limits` says that what it asks
    for keeps `Problem.rows`, and `takes_cache_types` that it decides about types of the cache with the weights. It needs the `libraries`.
    """

    name: str
    source: str
    differs: str
    objective: TokenObjective
    within: Callable[[Sought, int], Strategy]
    along: Callable[[Sought, int], Strategy]
    steps: tuple[str, ...] = ()
    sensitivity: str = ""
    takes_side_limits: bool = False
    takes_cache_types: bool = False
    libraries: tuple[str, ...] = ()


def budgets_along(sought: Sought, n_points: int) -> list[int]:
    """So many budgets in bits of the whole file, from the smallest to the largest choice in even steps: the front of a method that knows only one."""
    space = sought.problem.space
    smallest, largest = (int(space.total_bits(choice)) for choice in (space.smallest(), space.largest()))
    return [int(bits) for bits in np.linspace(smallest, largest, n_points)]


AUTO = Method(
    name="auto",
    source="this project; docs/search.md",
    differs="",
    objective=KullbackLeibler(),
    within=lambda sought, budget_bits: auto(sought.problem, budget_bits, knowledge=sought.knowledge),
    along=lambda sought, n_points: auto_front(sought.problem, knowledge=sought.knowledge, n_points=n_points),
    takes_side_limits=True,
    takes_cache_types=True,
)
