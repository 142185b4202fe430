"""Sensitivity by measurement: one unit changed at a time, from the original or from a quantized operating point. Exact for a single unit, and
dear: one evaluation a pair.

From the original, the price of a pair is the divergence of the model with this one unit changed. From an operating point it is what changing this one
unit adds, all others being quantized already, which is how the finished model will be. AMQ (Lee et al., EMNLP 2025) goes down from everything in 4
bits and keeps the divergence itself, which differs by a constant; from everything in the smallest format it is what finer storage wins back.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.progress import Progress
from bitwright.spaces import Choice, Space


def measured_table(space: Space, of_one: Callable[[int, int], float], *, progress: Progress) -> NDArray[np.float64]:
    """Divergence of each unit and format `(n_units, n_formats)` in nats per token, all other units as in the original; NaN where a pair is not
    offered. `of_one(unit, format)` measures one pair.

    One evaluation a pair.
    """
    table = np.full(space.offered.shape, np.nan)
    pairs = np.argwhere(space.offered)
    with progress.stage("Measuring one unit at a time", len(pairs)) as advance:
        for u, f in pairs:
            table[u, f] = of_one(int(u), int(f))
            advance(1)
    return table


def measured_table_at(space: Space, at: Choice, value: Callable[[Choice], float], *, progress: Progress) -> NDArray[np.float64]:
    """What each unit and format adds to the value of the choice `at` `(n_units,)` when this unit alone is changed, counted from the unit's largest
    format: `(n_units, n_formats)`, 0 there, and NaN where a pair is not offered. `value(choice)` measures a choice.

    Counting from the largest format changes no choice of the search, and makes prices of what storing a unit more coarsely costs. A price may be
    below zero, by noise or because errors cancel. One evaluation a pair, less those of `at` itself but one.
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
