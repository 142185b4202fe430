"""Sensitivity by measurement: the divergence of the model with one unit changed. Exact for a single unit, and dear: one evaluation a pair."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import Store
from bitwright.progress import Progress
from bitwright.spaces import Space


def measured_table(space: Space, of_one: Callable[[int, int], float], *, store: Store, progress: Progress) -> NDArray[np.float64]:
    """Divergence of each unit and format `(n_units, n_formats)` in nats per token, all other units as in the original; NaN where a pair is not
    offered. `of_one(unit, format)` measures one pair.

    Every finished evaluation is kept in `store` and not repeated.
    """
    table = np.full(space.offered.shape, np.nan)
    pairs = np.argwhere(space.offered)
    with progress.stage("Measuring one unit at a time", len(pairs)) as advance:
        for u, f in pairs:
            name = f"single/{u}/{f}"
            if not store.has_array(name):
                store.put_array(name, np.array(of_one(int(u), int(f))))
            table[u, f] = store.array(name)
            advance(1)
    return table
