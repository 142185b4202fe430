"""NSGA-II on format ranks, for objectives that are cheap to compute: a predicted loss, and bits.

Deb, Pratap, Agarwal & Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 6,
2002, with the operators of AMQ (Lee et al., EMNLP 2025): uniform crossover and mutation to a random format. AMQ's code redraws all genes of a
mutant; here each gene mutates on its own.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.format_ranks import RankArray

#: ranks `(n, n_units)` -> two objectives, both minimised `(n, 2)`
Evaluate = Callable[[RankArray], NDArray[np.float64]]


@dataclass(frozen=True)
class Breeding:
    """Hyperparameters of NSGA-II, by default AMQ's.

    Each of `n_generations` has as many children as the `population` has members. With probability `crossover` a child takes each gene from either
    parent, else all from one; then each gene is redrawn with probability `mutation`.
    """

    population: int = 200
    n_generations: int = 20
    crossover: float = 0.9
    mutation: float = 0.1


def bred(first: RankArray, top: RankArray, evaluate: Evaluate, *, breeding: Breeding, rng: np.random.Generator) -> RankArray:
    """Run NSGA-II from the population `first` `(n, n_units)` of ranks from 0 to `top` `(n_units,)`.

    Return the last population `(at most population, n_units)`, the best first, no two equal.
    """
    members = np.unique(first, axis=0)
    values = evaluate(members)
    for _ in range(breeding.n_generations):
        best = _best_first(values)[: breeding.population]
        members, values = members[best], values[best]
        if len(children := _new(_children(members, top, breeding, rng), members)):
            members, values = np.concatenate([members, children]), np.concatenate([values, evaluate(children)])
    return members[_best_first(values)[: breeding.population]]


def _children(members: RankArray, top: RankArray, breeding: Breeding, rng: np.random.Generator) -> RankArray:
    """Return children `(population, n_units)`; parents are chosen by binary tournaments among the ordered `members`."""
    shape = (breeding.population, len(top))
    mothers, fathers = (members[rng.integers(len(members), size=(breeding.population, 2)).min(axis=1)] for _ in range(2))
    from_father = (rng.random(shape) < 0.5) & (rng.random((breeding.population, 1)) < breeding.crossover)
    children: RankArray = np.where(from_father, fathers, mothers)
    return np.where(rng.random(shape) < breeding.mutation, rng.integers(top + 1, size=shape), children)


def _new(children: RankArray, members: RankArray) -> RankArray:
    """Return the different `children` that are not among the members."""
    everyone, first = np.unique(np.concatenate([members, children]), axis=0, return_index=True)
    return everyone[first >= len(members)]


def _best_first(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sort the rows of `values` `(n, 2)` by front, and within a front by falling crowding distance; return indices `(n,)`."""
    front = _fronts(values)
    return np.lexsort((-_loneliness(values, front), front))


def _fronts(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rank the rows of `values` `(n, 2)` by nondominated sorting, 0 for the first front `(n,)`; a duplicate counts as dominated.

    In two dimensions one pass in the order of the first objective is enough: a row belongs to the first front whose last member it beats in the
    second.
    """
    front = np.zeros(len(values), dtype=np.int64)
    last: list[float] = []  # the second objective of each front's last member, ascending
    for i in np.lexsort((values[:, 1], values[:, 0])):
        front[i] = bisect_right(last, values[i, 1])
        last[front[i] : front[i] + 1] = [float(values[i, 1])]
    return front


def _loneliness(values: NDArray[np.float64], front: NDArray[np.int64]) -> NDArray[np.float64]:
    """Crowding distance `(n,)`: half the perimeter of the box between a row's two neighbours in its front, infinite at the ends."""
    distance = np.full(len(values), np.inf)
    for k in range(front.max(initial=-1) + 1):
        members = np.flatnonzero(front == k)
        members = members[np.argsort(values[members, 0], kind="stable")]
        extent = np.ptp(values[members], axis=0)
        if len(members) > 2:
            between = np.abs(values[members[2:]] - values[members[:-2]]) / np.where(extent > 0, extent, 1.0)
            distance[members[1:-1]] = between.sum(axis=1)
    return distance
