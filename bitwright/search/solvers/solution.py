"""What a solver answers: a choice, and how far from the best it can be at most."""

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice, Space


@dataclass(frozen=True, eq=False)
class Solution:
    """A choice within the budget, and a proof of its quality.

    `choice` `(n_units,)` holds the index of a format for each unit, `loss` the sum of the table over it in nats/token, `size_bits` the bits of
    the whole file. No choice within the same constraints has a loss below `lower_bound`. `n_nodes` counts the partial choices that were looked
    at: states of a dynamic programme, or nodes of a branch and bound.
    """

    choice: Choice
    loss: float
    size_bits: int
    lower_bound: float
    n_nodes: int

    @property
    def gap(self) -> float:
        """By how many nats/token the loss can exceed the best possible one at most; 0 where the choice is proven best."""
        return self.loss - self.lower_bound


def table_loss(table: NDArray[np.float64], choice: Choice) -> float:
    """Sum of the table `(n_units, n_formats)` over a choice `(n_units,)`, correctly rounded, so that no order of the units matters."""
    return fsum(table[np.arange(len(choice)), choice].tolist())


def proven(space: Space, table: NDArray[np.float64], choice: Choice, *, below: float, n_nodes: int) -> Solution:
    """The solution that `choice` is, when the best loss is known to be at most `below` nats/token smaller."""
    loss = table_loss(table, choice)
    return Solution(choice, loss, int(space.total_bits(choice)), loss - max(below, 0.0), n_nodes)
