"""Measured sensitivity: one unit changed at a time, from the original or from a quantized operating point. Exact for a single unit, but expensive:
one evaluation per pair.

From the original, the price of a pair is the divergence of the model with this one unit changed. From an operating point it is the change of the
divergence when this one unit changes and all others are quantized already, as in the finished model. AMQ (Lee et al., EMNLP 2025) starts from all
units in 4 bits and uses the divergence itself, which differs by a constant; from all units in the smallest format it is the gain of a finer format.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.progress import Progress
from bitwright.spaces import Choice, Space


def measured_table(space: Space, of_one: Callable[[int, int], float], *, progress: Progress) -> NDArray[np.float64]:
    """Measure the divergence of each unit and format `(n_units, n_formats)` in nats per token, all other units as in the original; NaN where a pair
    is not offered. `of_one(unit, format)` measures one pair.

    One evaluation per pair.
    """
    table = np.full(space.offered.shape, np.nan)
    pairs = np.argwhere(space.offered)
    with progress.stage("Measuring one unit at a time", len(pairs)) as advance:
        for u, f in pairs:
            table[u, f] = of_one(int(u), int(f))
            advance(1)
    return table


def measured_table_at(space: Space, at: Choice, value: Callable[[Choice], float], *, progress: Progress) -> NDArray[np.float64]:
    """Measure the change of the value when one unit of the choice `at` `(n_units,)` changes its format, relative to the unit's largest format:
    `(n_units, n_formats)`, 0 at the largest format, NaN where a pair is not offered. `value(choice)` measures a choice.

    The reference to the largest format does not affect the search, and makes the price the cost of a coarser format. A price may be negative, through
    noise or because errors cancel. One evaluation for each pair not in `at`, and one for `at`.
    """
    table = np.full(space.offered.shape, np.nan)
    pairs = np.argwhere(space.offered)
    with progress.stage("Measuring one unit at a time", len(pairs)) as advance:
        table[np.arange(len(at)), at] = value(at)
        for u, f in pairs:
            if f != at[u]:
                changed = at.copy()
                changed[u] = f
                table[u, f] = value(changed)
            advance(1)
    since: NDArray[np.float64] = table - table[np.arange(len(at)), space.largest()][:, None]
    return since
