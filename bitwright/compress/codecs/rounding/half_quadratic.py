"""HQQ: half-quadratic quantization (Badri & Shaji, 2023, "Half-Quadratic Quantization of Large Machine Learning Models").

The offset of every group minimises Σ |w − q|^p with p < 1, which is robust to outliers; no data is needed. With an auxiliary error E, by alternating
minimisation at a fixed scale:

    E ← shrink(w − q, β),   shrink(x, β) = sign(x) · max(|x| − |x|^(p−1) / β, 0)          (sub-problem 1)
    offset ← mean of w − E − scale · code                                                   (sub-problem 2)
    β ← κ β

p = 0.7, β = 10, κ = 1.01 and 20 rounds as published. Differs in that every group stops separately: it keeps the offset with the least mean |w − q|,
so that rows are independent. Symmetric grids, whose offset is fixed, give round to nearest.
"""

import numpy as np

from bitwright.compress.codecs.grid import Grid, Placement
from bitwright.compress.codecs.rounding.rounding import Rounded, Rounding, by_rows, grouped_importance, whole_range
from bitwright.compress.models.source import Floats

P, BETA, KAPPA, ROUNDS = 0.7, 10.0, 1.01, 20


class HalfQuadratic(Rounding):
    """HQQ. Importance is not used."""

    def rounded(self, weights: Floats, grid: Grid, *, group: int, importance: Floats) -> Rounded:
        """Round each group with the offset that HQQ finds; the importance is not used."""
        counted = grouped_importance(np.ones_like(importance), group)
        return by_rows(weights, group, lambda groups: half_quadratic(groups, counted, grid), grid=grid)


def half_quadratic(groups: Floats, counted: Floats, grid: Grid) -> Placement:
    """Return the placement `(n_rows, n_groups)` of groups `(n_rows, n_groups, group)`; `counted` `(n_groups, group)` is 0 for the padding of a short
    group.
    """
    best = placement = whole_range(groups, counted, grid)
    least, beta, better = np.full(best.scale.shape, np.inf), BETA, np.ones(best.scale.shape, dtype=bool)
    for _ in range(ROUNDS):
        codes = grid.nearest(groups, placement)
        change = groups - grid.values(codes, placement)
        error = _mean(np.abs(change), counted)
        better &= error < least
        best, least = placement.where(better, best), np.where(better, error, least)
        if not better.any():
            break
        rest = groups - shrunk(change, beta) - codes * placement.scale[..., None]
        placement, beta = grid.moved(placement, _mean(rest, counted)), beta * KAPPA
    return best


def shrunk(x: Floats, beta: float) -> Floats:
    """Return the generalised soft threshold that solves sub-problem 1."""
    size = np.abs(x)
    # zero stays zero; its power would be infinite
    threshold = np.power(size, P - 1, out=np.full_like(size, np.inf), where=size > 0) / beta
    found: Floats = np.sign(x) * np.maximum(size - threshold, 0)
    return found


def _mean(values: Floats, counted: Floats) -> Floats:
    mean: Floats = (values * counted).sum(axis=-1) / counted.sum(axis=-1)
    return mean
