"""Lagrangian solver: for up to a million units, by sorts and sums over whole arrays, with its duality gap.

One multiplier (a price per bit) lets every unit choose alone (`relaxation`; Shoham & Gersho, "Efficient bit allocation for an arbitrary set of
quantizers", IEEE Transactions on Acoustics, Speech and Signal Processing 36, 1988, section III). The rest of the budget after rounding down goes into
`exchanges`, which reach choices between two corners of the hull that no multiplier leads to. The gap is below the saving of one step of one unit, so
it vanishes as units become many: channels and micro-experts (QVLA, CAMERA), where the exact dynamic programme takes long.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.exchanges import exchanged
from bitwright.search.solvers.instance import checked_table, extra_bits, room_bits
from bitwright.search.solvers.relaxation import relax
from bitwright.search.solvers.solution import Solution, proven
from bitwright.spaces import Space


def solve_lagrangian(space: Space, table: NDArray[np.float64], budget_bits: int) -> Solution:
    """Return a choice whose file has at most `budget_bits`; its `gap` is the duality gap, and no choice is better by more.

    `table` `(n_units, n_formats)` is in nats/token, of any sign and in any order. `n_nodes` counts the moves compared. Eight formats of a
    million units take a few hundred megabytes besides the space.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space or is not finite where a format is offered.
    """
    loss = checked_table(space, table)
    relaxation = relax(extra_bits(space), loss, space.offered, room_bits=room_bits(space, budget_bits))
    choice, n_moves = exchanged(relaxation)
    return proven(space, loss, choice, below=relaxation.gap(choice), n_nodes=n_moves)
