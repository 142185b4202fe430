"""Predicted front within some of a run's formats, beside that within all of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PredictedFront:
    """Front of `sizes_bytes` `(n_points,)`, ascending, against predicted `nats` per token `(n_points,)`."""

    sizes_bytes: NDArray[np.int64]
    nats: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.sizes_bytes.shape != self.nats.shape or (np.diff(self.sizes_bytes) < 0).any():
            raise ValueError("a front has one divergence for each size, sizes ascending")

    def within(self, size_bytes: int) -> float | None:
        """Return the divergence of the largest file of at most `size_bytes`, None if none is so small."""
        n = int(np.searchsorted(self.sizes_bytes, size_bytes, side="right"))
        return float(self.nats[n - 1]) if n else None
