"""GPTQ with its levels refitted: when all codes are settled, scales and minima by least squares on the layer's output (`least_squares.py`).

The idea of refitting what is real-valued to fixed codes is old (LSQ-Net, ICLR 2020; the affine step of OmniQuant and AffineQuant); here it is the
closed form for all groups of a row together. It costs no byte.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.grid import Grid
from bitwright.compress.codecs.rounding.gptq import Gptq
from bitwright.compress.codecs.rounding.least_squares import refitted_levels
from bitwright.compress.codecs.rounding.pruning import Pruned
from bitwright.compress.codecs.rounding.rounding import Rounded, Rounding
from bitwright.compress.models.source import Floats
from bitwright.spaces import Pattern


@dataclass(frozen=True, eq=False)
class Refitted(Rounding):
    """Rounding by GPTQ whose levels are refitted; where the second moments of a tensor are unknown, GPTQ's own."""

    gptq: Gptq

    def for_tensor(self, tensor: str, expert: int = 0) -> "Refitted":
        """Return the rounding with the second moments of one tensor, or of one expert of a stack."""
        return replace(self, gptq=self.gptq.for_tensor(tensor, expert))

    def rounded(self, weights: Floats, grid: Grid, *, group: int, importance: Floats) -> Rounded:
        """Round by GPTQ, and refit the levels."""
        found = self.gptq.rounded(weights, grid, group=group, importance=importance)
        return self._refitted(found, Pruned(np.ones(weights.shape, dtype=bool), weights), grid, group)

    def pruned(self, weights: Floats, pattern: Pattern, *, importance: Floats) -> Pruned:
        """Choose masks as GPTQ does."""
        return self.gptq.pruned(weights, pattern, importance=importance)

    def rounded_kept(self, pruned: Pruned, grid: Grid, *, group: int) -> Rounded:
        """Round kept weights by GPTQ, and refit their levels; kept weights that were refitted stand for the original ones, with equal gradients."""
        return self._refitted(self.gptq.rounded_kept(pruned, grid, group=group), pruned, grid, group)

    def second_moments(self, importance: Floats) -> NDArray[np.float64]:
        """Return those that GPTQ has."""
        return self.gptq.second_moments(importance)

    def _refitted(self, found: Rounded, pruned: Pruned, grid: Grid, group: int) -> Rounded:
        if not self.gptq.knows_moments:
            return found
        moments = self.gptq.second_moments(np.empty(0, dtype=np.float32))
        return refitted_levels(found, pruned.weights, pruned.mask, grid, group=group, moments=moments)
