"""Lagrangian relaxation at one budget: the multiplier (a price per bit), the reduced costs of all pairs, and a bound on the least loss.

At a price of p nats per bit the units no longer compete, and each takes the option of least loss + p * bits. The sum of these, less p times the
budget, is a lower bound on every loss within the budget (Everett, "Generalized Lagrange multiplier method", Operations Research 11, 1963), and it
is highest at the price of the first hull step (`relaxed_front`) that no longer fits into the budget (Sinha & Zoltners, Operations Research 27, 1979).
"""

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.greedy_fill import choice_after
from bitwright.search.solvers.relaxed_front import climb
from bitwright.spaces import Choice


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Instance and its relaxation.

    `extra_bits` `(n_units, n_formats)` are counted beyond each unit's smallest option and may sum to at most `room_bits`; `loss`
    `(n_units, n_formats)` is in nats/token; both are meaningless where nothing is offered. `price` is in nats per bit, 0 where everything fits.
    `reduced` `(n_units, n_formats)` holds the reduced costs: loss + price * bits minus the unit's least, `inf` where nothing is offered.
    `rounded_down` `(n_units,)` is the relaxed choice rounded down to the budget, at reduced costs of zero.
    """

    extra_bits: NDArray[np.int64]
    loss: NDArray[np.float64]
    room_bits: int
    price: float
    reduced: NDArray[np.float64]
    rounded_down: Choice

    def unspent_bits(self, choice: Choice) -> int:
        """Return the bits of the room that a choice `(n_units,)` leaves unspent."""
        return self.room_bits - int(self.extra_bits[np.arange(len(choice)), choice].sum())

    def gap(self, choice: Choice) -> float:
        """Return the optimality gap of a choice `(n_units,)` within the room: its loss exceeds the least by at most so many nats/token.

        A sum of nonnegative terms, so that a small gap keeps its digits: the reduced costs, and the price of the unspent bits.
        """
        return fsum(self.reduced[np.arange(len(choice)), choice].tolist()) + self.price * self.unspent_bits(choice)


def relax(extra_bits: NDArray[np.int64], loss: NDArray[np.float64], offered: NDArray[np.bool_], *, room_bits: int) -> Relaxation:
    """Solve the relaxation of units × options, all tables `(n_units, n_formats)`; a unit's smallest option has no extra bits."""
    rounded_down, price = _climbed(extra_bits, loss, offered, room_bits=room_bits)
    paid = np.where(offered, loss + price * extra_bits, np.inf)
    return Relaxation(extra_bits, loss, room_bits, price, paid - paid.min(axis=1, keepdims=True), rounded_down)


def _climbed(extra_bits: NDArray[np.int64], loss: NDArray[np.float64], offered: NDArray[np.bool_], *, room_bits: int) -> tuple[Choice, float]:
    """Return the choice after the hull steps that fit into the room, and the price of the first that does not."""
    ladder = climb(extra_bits, loss, offered)
    n_steps = int(np.searchsorted(np.cumsum(ladder.added_bits), room_bits, side="right"))
    choice = choice_after(ladder.start, ladder.unit[:n_steps], ladder.option[:n_steps])
    return choice, -float(ladder.slope[n_steps]) if n_steps < len(ladder.slope) else 0.0
