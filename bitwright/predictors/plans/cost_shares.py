"""Cost shares of choices in an additive table: the sum over a choice, and the fraction contributed by every unit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choices


@dataclass(frozen=True, eq=False)
class CostShares:
    """Choices `(n, n_units)` with the logarithms `log_sum` `(n,)` of their table sums, and `parts` `(n, n_units)`: each unit's price over the sum."""

    choices: Choices
    log_sum: NDArray[np.float64]
    parts: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.choices)

    def only(self, index: slice | NDArray[np.bool_] | NDArray[np.int64]) -> "CostShares":
        """Return a subset of the choices."""
        return CostShares(self.choices[index], self.log_sum[index], self.parts[index])


def cost_shares(table: NDArray[np.float64], choices: Choices) -> CostShares:
    """Compute the sums and shares of `choices` `(n, n_units)` in a table `(n_units, n_formats)`; prices below zero count as zero.

    A choice with a sum of zero has the logarithm −∞ and shares of zero.

    Raises:
        ValueError: a choice has a pair without a price.
    """
    prices = np.maximum(table[np.arange(len(table)), choices], 0.0)  # (n, n_units)
    if not np.isfinite(prices).all():
        raise ValueError("a table must price every pair that is chosen")
    sums = prices.sum(axis=1)
    parts = np.divide(prices, sums[:, None], out=np.zeros_like(prices), where=sums[:, None] > 0)
    return CostShares(choices, np.log(sums, out=np.full(len(sums), -np.inf), where=sums > 0), parts)
