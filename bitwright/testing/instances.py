"""Small random spaces and tables, and brute force over their choices."""

from itertools import product
from math import fsum
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwright.spaces import BlockFormat, Choices, Space, Tensor, Unit

Table = NDArray[np.float64]

#: Losses on a coarse grid meet in many ties; the others need every digit.
_GRID = st.integers(-4, 12).map(lambda n: n / 8)
_FINE = st.floats(-1.0, 30.0, allow_nan=False).map(lambda x: round(x, 9))


def space_of(size_bits: list[list[int]], offered: list[list[bool]], *, fixed_bits: int = 0) -> Space:
    """Return a space with these sizes; every third unit is a tie of two tensors."""
    formats = tuple(BlockFormat(f"F{f}", 32, 8 + 2 * f) for f in range(len(size_bits[0])))
    units = tuple(
        Unit(f"u{u}", u, "kind", tuple(Tensor(f"u{u}.{t}", (32,), "F16") for t in range(2 if u % 3 == 0 else 1))) for u in range(len(size_bits))
    )
    return Space(units, formats, np.array(size_bits, dtype=np.int64), np.array(offered, dtype=np.bool_), fixed_bits, 32 * len(units))


@st.composite
def instances(draw: st.DrawFn, max_units: int = 5, max_formats: int = 4) -> tuple[Space, Table]:
    """Draw a space and a table; pairs that are not offered have tempting sizes and losses, which are at times NaN."""
    n_units, n_formats = draw(st.integers(1, max_units)), draw(st.integers(1, max_formats))
    loss = draw(st.sampled_from([_GRID, _FINE]))
    width = draw(st.sampled_from([6, 1000, 2**33]))

    def grid(cells: st.SearchStrategy[Any]) -> list[list[Any]]:
        return draw(st.lists(st.lists(cells, min_size=n_formats, max_size=n_formats), min_size=n_units, max_size=n_units))

    offered = grid(st.booleans())
    for row in offered:
        row[draw(st.integers(0, n_formats - 1))] = True
    space = space_of(grid(st.integers(0, width)), offered, fixed_bits=draw(st.integers(0, 50)))
    tempting = draw(st.sampled_from([-100.0, float("nan")]))
    return space, np.where(space.offered, np.array(grid(loss), dtype=np.float64), tempting)


def every_choice(space: Space) -> Choices:
    """Return all choices of offered pairs, in lexicographic order."""
    return np.array(list(product(*(np.flatnonzero(row) for row in space.offered))), dtype=np.int64)


def losses(table: Table, choices: Choices) -> NDArray[np.float64]:
    """Return the exact sums of a table over choices `(n, n_units)`: `(n,)`."""
    return np.array([fsum(table[np.arange(len(choice)), choice].tolist()) for choice in choices])


def budgets(space: Space, share: float) -> int:
    """Return a budget between the smallest file and one and a half times the largest."""
    totals = space.total_bits(every_choice(space))
    return int(totals.min() + share * 1.5 * (totals.max() - totals.min()))
