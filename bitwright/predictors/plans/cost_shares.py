"""What an additive table says of choices: the sum over each, and which share of it every unit has."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choices


@dataclass(frozen=True, eq=False)
class Shares:
    """`choices` `(n, n_units)`, the logarithms `log_sum` `(n,)` of their sums, and `parts` `(n, n_units)`: each unit's price over the sum."""

    choices: Choices
    log_sum: NDArray[np.float64]
    parts: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.choices)

    def only(self, index: slice | NDArray[np.bool_] | NDArray[np.int64]) -> "Shares":
        """Some of them."""
        return Shares(self.choices[index], self.log_sum[index], self.parts[index])


def shares_of(table: NDArray[np.float64], choices: Choices) -> Shares:
    """Sums and shares of `choices` `(n, n_units)` by a table `(n_units, n_formats)`; prices below zero count as zero.

    A choice that costs nothing has the logarithm −∞ and shares of zero.

    Raises:
        ValueError: a choice has a pair that the table does not price.
    """
    prices = np.maximum(table[np.arange(len(table)), choices], 0.0)  # (n, n_units)
    if not np.isfinite(prices).all():
        raise ValueError("a table must price every pair that is chosen")
    sums = prices.sum(axis=1)
    parts = np.divide(prices, sums[:, None], out=np.zeros_like(prices), where=sums[:, None] > 0)
    return Shares(choices, np.log(sums, out=np.full(len(sums), -np.inf), where=sums > 0), parts)
