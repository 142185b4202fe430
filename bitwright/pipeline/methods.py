"""What a search method is made of: a declaration of parts, and what it is given to work with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import KullbackLeibler, TokenObjective
from bitwright.search import Knowledge, Problem, Refit, Strategy, auto, auto_front

Table = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sought:
    """What a method works with.

    `problem` has the space, the choices worth measuring first (the best uniform allocations among them) and the seed; `knowledge` the run's table and
    how to learn. `price` gives the table `(n_units, n_formats)` of any proxy by its name, computed when it is first asked for and then kept; what that
    reads is counted.
    """

    problem: Problem
    knowledge: Knowledge
    refit: Callable[[str], Refit]
    price: Callable[[str], Table]


@dataclass(frozen=True, eq=False)
class Method:
    """A search as published or as meant here: `within` a budget in bits of the whole file, and `along` the front with a number of points to begin with.

    `source` is the paper, `differs` what is done otherwise than there, in a sentence, empty where nothing is. `objective` is what it measures.
    """

    name: str
    source: str
    differs: str
    objective: TokenObjective
    within: Callable[[Sought, int], Strategy]
    along: Callable[[Sought, int], Strategy]


AUTO = Method(
    name="auto",
    source="this project; docs/search.md",
    differs="",
    objective=KullbackLeibler(),
    within=lambda sought, budget_bits: auto(sought.problem, budget_bits, knowledge=sought.knowledge),
    along=lambda sought, n_points: auto_front(sought.problem, knowledge=sought.knowledge, n_points=n_points),
)
