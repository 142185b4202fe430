"""Solution of a solver: a choice with a proven optimality gap."""

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice, Space


@dataclass(frozen=True, eq=False)
class Solution:
    """Choice within the budget, with a bound that proves its quality.

    `choice` `(n_units,)` holds the index of a format for each unit, `loss` the sum of the table over it in nats/token, `size_bits` the bits of
    the whole file. No choice within the same constraints has a loss below `lower_bound`. `n_nodes` counts the partial choices examined: states of a
    dynamic programme, or nodes of a branch and bound.
    """

    choice: Choice
    loss: float
    size_bits: int
    lower_bound: float
    n_nodes: int

    @property
    def gap(self) -> float:
        """Optimality gap in nats/token: the loss exceeds the least by at most this; 0 where the choice is proven optimal."""
        return self.loss - self.lower_bound


def table_loss(table: NDArray[np.float64], choice: Choice) -> float:
    """Sum the table `(n_units, n_formats)` over a choice `(n_units,)`, correctly rounded, so that the order of the units does not matter."""
    return fsum(table[np.arange(len(choice)), choice].tolist())


def proven(space: Space, table: NDArray[np.float64], choice: Choice, *, below: float, n_nodes: int) -> Solution:
    """Return `choice` as a `Solution`, given that the least loss is at most `below` nats/token smaller."""
    loss = table_loss(table, choice)
    return Solution(choice, loss, int(space.total_bits(choice)), loss - max(below, 0.0), n_nodes)
