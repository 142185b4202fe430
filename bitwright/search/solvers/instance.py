"""One instance of the problem, checked: a table that has a finite value wherever a format is offered, a budget that some file meets."""

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import BudgetError, UserError
from bitwright.spaces import Space


def checked_table(space: Space, table: NDArray[np.float64]) -> NDArray[np.float64]:
    """`table` `(n_units, n_formats)`, nats/token, with zero where nothing is offered.

    Raises:
        UserError: another shape than the space's, or a value that is not finite where a format is offered.
    """
    if table.shape != space.offered.shape:
        raise UserError(f"A table must have a row per unit and a column per format, {space.offered.shape}; this one is {table.shape}: fill it again.")
    faults = np.argwhere(space.offered & ~np.isfinite(table))
    if len(faults):
        unit, form = faults[0]
        raise UserError(
            f"A table must be finite wherever a format is offered; {space.units[unit].name} in {space.formats[form].name} is {table[unit, form]} "
            f"({len(faults)} such): measure it again, or take the pair out with `Space.narrowed`."
        )
    return np.where(space.offered, table, 0.0).astype(np.float64)


def extra_bits(space: Space) -> NDArray[np.int64]:
    """Bits of each pair beyond the unit's smallest offered one `(n_units, n_formats)`, zero where nothing is offered."""
    smallest = np.where(space.offered, space.size_bits, np.iinfo(np.int64).max).min(axis=1, keepdims=True)  # (n_units, 1)
    return np.where(space.offered, space.size_bits - smallest, 0)


def room_bits(space: Space, budget_bits: int) -> int:
    """Bits left to spend once every unit has its smallest format; a multiple of what all sizes differ by, and never more than can be spent.

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
