"""Pareto front on three axes: size, another cost, and loss.

For a price of the other cost the table of loss + price · cost has a hull over all sizes (`front.hull`); sweeping that price gives corners of the
lower convex hull of all (size, cost, loss) points (Everett, Operations Research 11, 1963, with two multipliers). Every corner found is exact and
nondominated; corners between two prices of the sweep are missed, and so are nondominated points above the hull.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.front import hull, nondominated
from bitwright.search.solvers.instance import checked_table
from bitwright.spaces import Choices, Space

_PRICES = np.geomspace(1e-5, 1e3, 33)  # times the range of the loss over the range of the cost


@dataclass(frozen=True, eq=False)
class Surface:
    """Nondominated choices on three axes, in ascending size.

    `choices` `(n_points, n_units)`, `size_bits` `(n_points,)` of the whole file, `taken` `(n_points,)` the other cost, `loss` `(n_points,)` in
    nats/token.
    """

    choices: Choices
    size_bits: NDArray[np.int64]
    taken: NDArray[np.float64]
    loss: NDArray[np.float64]


def surface(space: Space, table: NDArray[np.float64], other: NDArray[np.float64], *, n_points: int = 150) -> Surface:
    """Return the front of size, another cost `(n_units, n_formats)` and loss, from at most `n_points` sizes for each of 34 prices.

    Raises:
        UserError: a table has another shape than the space or is not finite where a format is offered; `n_points` is below 2.
    """
    loss, cost, units = checked_table(space, table), checked_table(space, other), np.arange(len(space.units))
    ranges = [
        float((np.where(space.offered, values, -np.inf).max(axis=1) - np.where(space.offered, values, np.inf).min(axis=1)).sum())
        for values in (loss, cost)
    ]
    prices = np.append(0.0, _PRICES * ranges[0] / ranges[1]) if ranges[1] > 0 else np.zeros(1)
    choices = np.unique(np.concatenate([hull(space, loss + price * cost, n_points=n_points).choices for price in prices]), axis=0)
    points = np.stack([space.total_bits(choices).astype(np.float64), cost[units, choices].sum(axis=1), loss[units, choices].sum(axis=1)], axis=1)
    front = np.flatnonzero(nondominated(points))
    rows = front[np.lexsort(points[front].T[::-1])]
    return Surface(choices[rows], space.total_bits(choices[rows]), points[rows, 1], points[rows, 2])
