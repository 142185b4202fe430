"""Pairs of unit and format that no good choice has, by their reduced costs.

Reduced-cost fixing (Dantzig, Fulkerson & Johnson, "Solution of a large-scale traveling-salesman problem", Operations Research 2, 1954): the least
loss of a choice with one pair is at least the bound of the relaxation plus the reduced cost of the pair. Where that is more than the loss of a choice
that is known, the pair is in no better one.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.instance import checked_table, extra_bits, room_bits
from bitwright.search.solvers.relaxation import relax
from bitwright.spaces import Space


def within_reach(space: Space, table: NDArray[np.float64], budget_bits: int, *, loss_at_most: float) -> NDArray[np.bool_]:
    """Return the offered pairs `(n_units, n_formats)` without those that no choice within the budget has whose loss is at most `loss_at_most`.

    `table` `(n_units, n_formats)` are lower bounds on the losses, in nats/token.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space or is not finite where a format is offered.
    """
    loss = checked_table(space, table)
    relaxation = relax(extra_bits(space), loss, space.offered, room_bits=room_bits(space, budget_bits))
    choice = relaxation.rounded_down
    bound = float(loss[np.arange(len(choice)), choice].sum()) - relaxation.gap(choice)
    found: NDArray[np.bool_] = space.offered & (bound + relaxation.reduced <= loss_at_most)
    return found
