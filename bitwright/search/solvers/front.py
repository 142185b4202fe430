"""Pareto fronts: the best choices of all sizes at once, nondominated points and hypervolume. Every column is minimised."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.search.solvers.instance import checked_table, extra_bits
from bitwright.search.solvers.relaxed_front import Ladder, climb
from bitwright.spaces import Choices, Space


@dataclass(frozen=True, eq=False)
class Front:
    """Pareto front of size and loss: choices in ascending size and falling loss.

    `choices` `(n_points, n_units)`, `size_bits` `(n_points,)` of the whole file, `loss` `(n_points,)` in nats/token.
    """

    choices: Choices
    size_bits: NDArray[np.int64]
    loss: NDArray[np.float64]


def hull(space: Space, table: NDArray[np.float64], *, n_points: int = 5_000) -> Front:
    """Return the supported front: the corners of the lower convex hull of all (size, loss) points, each the best choice of its size.

    From the smallest choice the hull steps of all units are taken in the order of nats saved per bit (Sinha & Zoltners, Operations Research 27,
    1979; see `ladder`). Steps of one efficiency are taken one by one, so points between two corners appear too. There are at most
    `n_units * (n_formats - 1) + 1` points; of more than `n_points` that many are kept, spread evenly along the size.

    Raises:
        UserError: the table has another shape than the space or is not finite where a format is offered; `n_points` is below 2.
    """
    loss = checked_table(space, table)
    ladder = climb(extra_bits(space), loss, space.offered)
    choices = _choices_after(ladder, _evenly(ladder.envelope(0).bits, n_points))
    total = loss[np.arange(len(loss)), choices].sum(axis=1)  # (n_points,)
    falls = np.append(True, total[1:] < np.minimum.accumulate(total)[:-1])  # a step may save less than a sum of float64 can tell
    return Front(choices[falls], space.total_bits(choices[falls]), total[falls])


def _choices_after(ladder: Ladder, n_steps: NDArray[np.int64]) -> Choices:
    """Return the choices after each of these numbers of steps `(n_points,)`: `(n_points, n_units)`."""
    by_unit = np.argsort(ladder.unit, kind="stable")
    first = np.searchsorted(ladder.unit[by_unit], np.arange(len(ladder.start) + 1))
    choices = np.empty((len(n_steps), len(ladder.start)), dtype=np.int64)
    for unit, start in enumerate(ladder.start):
        steps = by_unit[first[unit] : first[unit + 1]]
        choices[:, unit] = np.append(start, ladder.option[steps])[np.searchsorted(steps, n_steps)]
    return choices


def nondominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask of the nondominated rows of `values` `(n, n_columns)`: `(n,)`. Of equal rows, all or none are nondominated.

    Raises:
        UserError: a value is NaN.
    """
    if np.isnan(values).any():
        raise UserError("Points of a front must be numbers, but one is NaN: leave out the points that were not measured.")
    rows, inverse = np.unique(values, axis=0, return_inverse=True)  # sorted: a row can only be beaten by an earlier one
    is_nondominated = np.ones(len(rows), dtype=np.bool_)
    for i in range(len(rows)):
        if is_nondominated[i]:
            is_nondominated[i + 1 :] &= (rows[i + 1 :] < rows[i]).any(axis=1)
    return is_nondominated[inverse.ravel()]


def hypervolume(values: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the hypervolume: the area or volume dominated by points `(n, 2)` or `(n, 3)` below `reference` `(2,)` or `(3,)`. Points beyond the
    reference add nothing.

    Zitzler & Thiele, "Multiobjective evolutionary algorithms", IEEE Transactions on Evolutionary Computation 3, 1999: in two columns a sum of
    rectangles, in three of slices between successive values of the last column.

    Raises:
        UserError: the points have another number of columns than two or three, or a value is NaN.
    """
    n_columns = values.shape[-1]
    if values.ndim != 2 or n_columns not in (2, 3) or reference.shape != (n_columns,):
        raise UserError(
            f"A hypervolume needs points of two or three columns and a reference of as many; these are {values.shape} and {reference.shape}: select "
            "them."
        )
    if np.isnan(values).any():
        raise UserError("Points of a front must be numbers, but one is NaN: leave out the points that were not measured.")
    inside = values[(values < reference).all(axis=1)]
    inside = inside[np.argsort(inside[:, 0], kind="stable")]
    if n_columns == 2:
        return _area(inside, reference)
    levels = np.unique(inside[:, 2])
    areas = [_area(inside[inside[:, 2] <= level, :2], reference[:2]) for level in levels]
    return float((np.array(areas) * np.diff(np.append(levels, reference[2]))).sum())


def _area(ascending: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the area dominated by points `(n, 2)` inside the reference, ascending in the first column."""
    widths = np.diff(np.append(ascending[:, 0], reference[0]))
    return float((widths * (reference[1] - np.minimum.accumulate(ascending[:, 1]))).sum())


def spread(front: Front, n: int) -> NDArray[np.int64]:
    """Return the indices of `n` different points spread evenly along the size, both ends included; all points where there are at most `n`.

    Raises:
        UserError: fewer than two points are asked for.
    """
    return _evenly(front.size_bits, n)


def _evenly(size_bits: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    if n < 2:
        raise UserError(f"A spread must hold both ends of a front, but {n} points are asked for: ask for 2 or more.")
    n_points = len(size_bits)
    if n_points <= n:
        return np.arange(n_points)
    nearest = np.searchsorted((size_bits[1:] + size_bits[:-1]) / 2, np.linspace(size_bits[0], size_bits[-1], n))
    rank = np.arange(n)
    rising = np.maximum.accumulate(nearest - rank) + rank  # no point twice
    return np.minimum(rising, n_points - n + rank)
