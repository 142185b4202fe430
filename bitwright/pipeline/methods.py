"""What a search method is made of: a declaration of parts, and what it is given to work with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import KullbackLeibler, TokenObjective
from bitwright.search import Knowledge, Problem, Refit, Strategy, auto, auto_front
from bitwright.spaces import Choice

Table = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sought:
    """What a method works with.

    `problem` has the space, the choices worth measuring first (the best uniform allocations among them) and the seed; `knowledge` the run's table
    and how to learn. `refit` is how a predictor learns, `price` the table `(n_units, n_formats)` of a proxy, and `score` the scores `(n_units,)` that
    the table of such a proxy was made of, high where a unit is important, each by its name. A table is computed when it is first asked for and then
    kept, and what that reads is counted. `measure` gives the divergence of a choice on all of the text, which is counted too. A sequence has
    `sequence_length` tokens.
    """

    problem: Problem
    knowledge: Knowledge
    refit: Callable[[str], Refit]
    price: Callable[[str], Table]
    score: Callable[[str], NDArray[np.float64]]
    measure: Callable[[Choice], float]
    sequence_length: int


@dataclass(frozen=True, eq=False)
class Method:
    """A search as published or as meant here: `within` a budget in bits of the whole file, and `along` the front with so many points to begin with.

    `source` is the paper, `differs` what is done otherwise than there, in a sentence, empty where nothing is. `objective` is what it measures, and
    `steps` are what it has follow the formats where nobody says, see `Settings.steps`.
    `needs` are the libraries of the extra `search` that it cannot do without.
    """

    name: str
    source: str
    differs: str
    objective: TokenObjective
    within: Callable[[Sought, int], Strategy]
    along: Callable[[Sought, int], Strategy]
    steps: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


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
)
