"""Round to nearest with a searched clipping range: outliers are clipped so that all other weights get finer levels.

For each group the range is searched that minimises Σ d (w − q)², d the importance of the input channel, as the quantizers of libggml and the clipping
of OmniQuant (Shao et al., ICLR 2024) and AWQ (Lin et al., MLSys 2024) do. Differs from theirs in that both ends move: first together, over `STEPS`
fractions of the range, then separately by less than a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.grid import Grid, Placement
from bitwright.compress.codecs.rounding.rounding import Rounded, Rounding, by_rows, grouped_importance, whole_range
from bitwright.compress.models.source import Floats

STEPS = tuple(0.04 * i for i in range(1, 8))  # fractions of the range clipped at either end
_FINER = (-0.02, 0.02)


class SearchedClipping(Rounding):
    """Round to nearest with a searched clipping range."""

    def rounded(self, weights: Floats, grid: Grid, *, group: int, importance: Floats) -> Rounded:
        """Round each group to the clipped range with the least importance-weighted squared error."""
        channels = grouped_importance(importance, group)
        return by_rows(weights, group, lambda groups: clipped(groups, channels, grid), grid=grid)


@dataclass(eq=False)
class _Best:
    """Best placement so far of every group, its error and the fraction clipped at either end, all `(n_rows, n_groups)`."""

    placement: Placement
    error: Floats
    ends: NDArray[np.float32]  # (2, n_rows, n_groups)


def clipped(groups: Floats, importance: Floats, grid: Grid) -> Placement:
    """Return the placement `(n_rows, n_groups)` of groups `(n_rows, n_groups, group)` with the importance `(n_groups, group)` of their columns."""
    low, high = groups.min(axis=-1), groups.max(axis=-1)
    whole = whole_range(groups, importance, grid)
    best = _Best(whole, _error(groups, importance, grid, placement=whole), np.zeros((2, *low.shape), dtype=np.float32))
    for ends in _tried(best):
        reach = high - low
        placement = grid.between(low + ends[0] * reach, high - ends[1] * reach)
        error = _error(groups, importance, grid, placement=placement)
        better = error < best.error
        best.placement = placement.where(better, best.placement)
        best.error = np.where(better, error, best.error)
        best.ends = np.where(better, ends, best.ends)
    return best.placement


def _tried(best: _Best) -> Iterator[NDArray[np.float32]]:
    """Yield fractions `(2, n_rows, n_groups)` to clip at the two ends, the later ones around the best so far."""
    for share in STEPS:
        yield np.full_like(best.ends, share)
    for end in range(2):
        for finer in _FINER:
            moved = best.ends.copy()
            moved[end] = np.maximum(moved[end] + finer, 0)
            yield moved


def _error(groups: Floats, importance: Floats, grid: Grid, *, placement: Placement) -> Floats:
    """Return Σ d (w − q)² `(n_rows, n_groups)`."""
    change = grid.values(grid.nearest(groups, placement), placement) - groups
    error: Floats = np.einsum("rgk,rgk,gk->rg", change, change, importance)
    return error
