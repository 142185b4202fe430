"""Exact optima within bits alone, and within bits and one reduction each: where a search begins, and candidates that are always measured.

A table of sensitivities is second order, and pruning half of a matrix is far from the original, so that its optimum over all formats may be worse
than that over bits. A search that begins at the best of these as measured takes its first slopes there, at the operating point.
"""

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.pipeline.planning.origins import KNAPSACK
from bitwright.search import Row, solve_with_rows
from bitwright.spaces import Choice, Space


def by_reduction(space: Space, table: NDArray[np.float64], size_bytes: int, rows: tuple[Row, ...]) -> dict[str, Choice]:
    """Return the exact optima of `table` `(n_units, n_formats)` within bits alone, and within bits and one reduction each, by name; none where there
    are only bits, and those that fit.
    """
    reductions = np.array([form.reduction for form in space.formats])
    there = dict.fromkeys(reductions[space.offered.any(axis=0)].tolist())
    found: dict[str, Choice] = {}
    for reduction in there if there.keys() - {""} else ():
        offered = space.offered & np.isin(reductions, ["", reduction])
        if offered.any(axis=1).all():
            with suppress(UserError):
                choice = solve_with_rows(space.narrowed(offered), table, 8 * size_bytes, rows=rows).choice
                found[f"{KNAPSACK}, bits {f'and {reduction}' if reduction else 'alone'}"] = choice
    return found
