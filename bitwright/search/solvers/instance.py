"""Validate an instance: the table is finite wherever a format is offered, and some file meets the budget."""

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import BudgetError, UserError
from bitwright.spaces import Space


def checked_table(space: Space, table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `table` `(n_units, n_formats)`, nats/token, with zero where nothing is offered.

    Raises:
        UserError: the table has another shape than the space, or is not finite where a format is offered.
    """
    if table.shape != space.offered.shape:
        raise UserError(
            f"A table must have a row per unit and a column per format, {space.offered.shape}, but it is {table.shape}: compute it again."
        )
    faults = np.argwhere(space.offered & ~np.isfinite(table))
    if len(faults):
        unit, form = faults[0]
        raise UserError(
            f"A table must be finite wherever a format is offered; {space.units[unit].name} in {space.formats[form].name} is {table[unit, form]} "
            f"({len(faults)} such): measure it again, or exclude the pair with `Space.narrowed`."
        )
    return np.where(space.offered, table, 0.0).astype(np.float64)


def extra_bits(space: Space) -> NDArray[np.int64]:
    """Return the bits of each pair beyond the unit's smallest offered format `(n_units, n_formats)`, zero where nothing is offered."""
    smallest = np.where(space.offered, space.size_bits, np.iinfo(np.int64).max).min(axis=1, keepdims=True)  # (n_units, 1)
    return np.where(space.offered, space.size_bits - smallest, 0)


def room_bits(space: Space, budget_bits: int) -> int:
    """Return the bits left to spend once every unit has its smallest format: a multiple of the greatest common divisor of all size differences, and
    at most what the largest formats take.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """
    smallest = int(space.total_bits(space.smallest()))
    if budget_bits < smallest:
        raise BudgetError(
            f"A budget must hold the smallest file that the space offers, {_bytes(-(-smallest // 8))}, but it is {_bytes(budget_bits // 8)}: "
            "raise it, or offer coarser formats."
        )
    extra = extra_bits(space)
    most = min(budget_bits - smallest, int(extra.max(axis=1).sum()))
    return most - most % max(int(np.gcd.reduce(extra, axis=None)), 1)


def _bytes(size_bytes: int) -> str:
    return f"{size_bytes:,} bytes ({size_bytes / 1e6:.1f} MB)"
