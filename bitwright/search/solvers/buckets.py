"""Multiple-choice knapsack by dynamic programming over a budget discretised into 10,000 equal buckets, as in SPDY and OBC.

Frantar & Alistarh, "SPDY: Accurate Pruning with Speedup Guarantees", ICML 2022, section 3.1, and "Optimal Brain Compression", NeurIPS 2022: the least
loss of the first k units for every number of buckets, unit by unit. Their code rounds each unit's cost to the *nearest* bucket, so the sum can exceed
the budget by half a bucket a unit, and OBC's leaves out formats that cost less than one. Here buckets are counted beyond the smallest file and
rounded *up*: the budget is never exceeded, every format can be chosen, and up to one bucket per unit is lost, which the gap shows. `knapsack` needs
no rounding; this solver reproduces those systems.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.instance import checked_table, extra_bits, room_bits
from bitwright.search.solvers.relaxation import relax
from bitwright.search.solvers.solution import Solution, proven
from bitwright.spaces import Choice, Space


def solve_in_buckets(space: Space, table: NDArray[np.float64], budget_bits: int, *, n_buckets: int = 10_000) -> Solution:
    """Return the choice of least loss whose file, each unit rounded up to whole buckets, has at most `budget_bits`.

    `table` `(n_units, n_formats)` is in nats/token. Time and memory grow with `n_units * n_buckets`. The gap is measured against the bound of
    `relaxation`; `n_nodes` counts the partial choices, `n_units * n_buckets`.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space or is not finite where a format is offered.
    """
    loss, extra = checked_table(space, table), extra_bits(space)
    relaxation = relax(extra, loss, space.offered, room_bits=room_bits(space, budget_bits))
    room = budget_bits - int(space.total_bits(space.smallest()))
    bucket_bits = min(max(room // n_buckets, 1), np.iinfo(np.int64).max)
    n_whole = min(room // bucket_bits, n_buckets)
    choice = _least_loss(-(-extra // bucket_bits), np.where(space.offered, loss, np.inf), n_whole)
    return proven(space, loss, choice, below=relaxation.gap(choice), n_nodes=len(loss) * n_whole)


def _least_loss(buckets: NDArray[np.int64], loss: NDArray[np.float64], n_buckets: int) -> Choice:
    """Return the choice of least loss with at most `n_buckets`; tables `(n_units, n_formats)`, `loss` infinite where nothing is offered."""
    taken = np.zeros((len(loss), n_buckets + 1), dtype=np.uint16)  # the last unit's format, for every unit and number of buckets
    least = np.zeros(n_buckets + 1)
    for unit in range(len(loss)):
        options = np.flatnonzero(np.isfinite(loss[unit]) & (buckets[unit] <= n_buckets))
        totals = np.full((len(options), n_buckets + 1), np.inf)
        for row, option in enumerate(options):
            cost = buckets[unit, option]
            totals[row, cost:] = least[: n_buckets + 1 - cost] + loss[unit, option]
        taken[unit] = options[totals.argmin(axis=0)]
        least = totals.min(axis=0)
    choice, left = np.empty(len(loss), dtype=np.int64), n_buckets
    for unit in reversed(range(len(loss))):
        choice[unit] = taken[unit, left]
        left -= int(buckets[unit, choice[unit]])
    return choice
