"""Costs: what a choice takes that follows from its formats, without measuring anything.

Bytes of the file, bytes that a decode step reads, seconds and joules for a token on a device: each is a sum over units of what the pair takes, and of
what no choice changes. So any of them may be an objective, an axis of a front, or a row of an integer programme, and none needs a solver of its own.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choices, Space


class CostObjective(StrEnum):
    """Costs by the words that ask for them."""

    BYTES = "bytes"
    BITS = "bits"
    ACTIVE_BYTES = "active-bytes"
    SECONDS = "seconds-per-token"
    JOULES = "joules-per-token"

    @property
    def unit(self) -> str:
        """The unit of its values."""
        return {"bytes": "bytes", "bits": "bits/weight", "active-bytes": "bytes/token", "seconds-per-token": "s/token"}.get(self.value, "J/token")

    @property
    def is_of_device(self) -> bool:
        """Whether it is counted on a device."""
        return self in (CostObjective.SECONDS, CostObjective.JOULES)


@dataclass(frozen=True, eq=False)
class Cost:
    """`table` `(n_units, n_formats)` is what each pair takes, and `fixed` what every choice takes besides, in the unit of `objective`.

    What stands in the table where nothing is offered means nothing.
    """

    objective: CostObjective
    table: NDArray[np.float64]
    fixed: float

    def of(self, choices: Choices) -> NDArray[np.float64]:
        """What each row of `choices` `(..., n_units)` takes: `(...)`."""
        total: NDArray[np.float64] = self.table[np.arange(len(self.table)), choices].sum(axis=-1) + self.fixed
        return total

    def times(self, factor: float, objective: CostObjective) -> "Cost":
        """Another cost in proportion to this one."""
        return Cost(objective, factor * self.table, factor * self.fixed)


def bytes_cost(space: Space) -> Cost:
    """Bytes of the file."""
    return Cost(CostObjective.BYTES, space.size_bits / 8, space.fixed_bits / 8)


def bits_cost(space: Space) -> Cost:
    """Bits of the file for each weight of the model."""
    return bytes_cost(space).times(8 / space.n_weights, CostObjective.BITS)
