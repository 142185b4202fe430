"""Pareto front on three axes: size, another cost, and divergence."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.report.numerals import megabytes, significant

_CEILINGS = 5


@dataclass(frozen=True, eq=False)
class CostFront:
    """Predicted front of size, a cost and divergence.

    `cost` is the cost's name, `unit` its unit, and `device` the device that it is computed for, empty for none. The points `sizes_bytes` `(n,)`,
    `taken` `(n,)` (the cost) and `nats` `(n,)` are nondominated. `of_candidates` `(n_candidates,)` is the cost of each candidate of the run.
    """

    cost: str
    unit: str
    device: str
    sizes_bytes: NDArray[np.int64]
    taken: NDArray[np.float64]
    nats: NDArray[np.float64]
    of_candidates: NDArray[np.float64]

    @property
    def title(self) -> str:
        """Title of the cost, with its device."""
        return f"{self.cost} on {self.device}" if self.device else self.cost

    def words(self, taken: float) -> str:
        """Format an amount of the cost with its unit, bytes as MB."""
        return f"{megabytes(taken)} MB" if self.unit.startswith("bytes") else f"{significant(taken, 4)} {self.unit.partition('/')[0]}"

    @property
    def ceilings(self) -> NDArray[np.float64]:
        """Five ceilings on the cost, evenly spaced by ratio, the last of which excludes nothing `(5,)`; one where all points cost the same."""
        low, high = float(self.taken.min()), float(self.taken.max())
        return low * (high / low) ** (np.arange(1, _CEILINGS + 1) / _CEILINGS) if high > low else np.array([high])

    def within(self, ceiling: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return sizes and divergences of the nondominated points within a ceiling, both `(m,)`."""
        rows = np.flatnonzero(self.taken <= ceiling * (1 + 1e-12))
        order = rows[np.lexsort((self.nats[rows], self.sizes_bytes[rows]))]
        falls = np.append(True, self.nats[order][1:] < np.minimum.accumulate(self.nats[order])[:-1])[: len(order)]
        return self.sizes_bytes[order][falls], self.nats[order][falls]

    def least(self, size_bytes: float, ceiling: float) -> float:
        """Return the least divergence among points of at most `size_bytes` within the ceiling; NaN where there is none."""
        sizes, nats = self.within(ceiling)
        fitting = nats[sizes <= size_bytes]
        return float(fitting.min()) if len(fitting) else float("nan")
