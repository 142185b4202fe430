"""Costs: objectives computed from a choice's formats alone, without running the model.

File bytes, bytes read per decode step, seconds and joules per token on a device: each is a sum over units of one number per format, plus a constant.
So any of them can be an objective, an axis of a Pareto front, or a constraint of the integer program, without a solver of its own.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choices, Space


class CostObjective(StrEnum):
    """Names of the costs, as on the command line."""

    BYTES = "bytes"
    BITS = "bits"
    ACTIVE_BYTES = "active-bytes"
    SECONDS = "seconds-per-token"
    JOULES = "joules-per-token"

    @property
    def unit(self) -> str:
        """Return the unit of its values."""
        return {"bytes": "bytes", "bits": "bits/weight", "active-bytes": "bytes/token", "seconds-per-token": "s/token"}.get(self.value, "J/token")

    @property
    def needs_device(self) -> bool:
        """Return whether the cost depends on a device."""
        return self in (CostObjective.SECONDS, CostObjective.JOULES)


@dataclass(frozen=True, eq=False)
class Cost:
    """Additive cost: `table` `(n_units, n_formats)` for each unit in each format, and the constant `fixed`, in the unit of `objective`.

    Entries of pairs that are not offered are undefined.
    """

    objective: CostObjective
    table: NDArray[np.float64]
    fixed: float

    def of(self, choices: Choices) -> NDArray[np.float64]:
        """Return the cost `(...)` of `choices` `(..., n_units)`."""
        total: NDArray[np.float64] = self.table[np.arange(len(self.table)), choices].sum(axis=-1) + self.fixed
        return total

    def times(self, factor: float, objective: CostObjective) -> "Cost":
        """Return `factor` times this cost, as the cost named `objective`."""
        return Cost(objective, factor * self.table, factor * self.fixed)


def bytes_cost(space: Space) -> Cost:
    """Return the bytes of the file as a cost."""
    return Cost(CostObjective.BYTES, space.size_bits / 8, space.fixed_bits / 8)


def bits_cost(space: Space) -> Cost:
    """Return the bits of the file per weight of the model as a cost."""
    return bytes_cost(space).times(8 / space.n_weights, CostObjective.BITS)
