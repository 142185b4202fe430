"""Least squares on a layer's output, ‖(W − W̃) X‖² with the second moments H = X Xᵀ: refit of the weights that pruning kept, and of levels to codes.

The kept weights S of a row w solve H_SS w̃_S = H_S w: optimal brain surgery of all pruned weights at once (Hassibi & Stork, NeurIPS 1992; the closed
form of Optimal Brain Restoration, 2025). SparseGPT lets only later columns make up for a pruned one, here all do. Rows have masks of their own, so
that a factor for each would be needed; conjugate gradients, for all rows at once, come to the same error to three digits in eight steps
(`benchmarks/sparse_codecs.py`).

Of fixed codes, weights are linear in the scales and minima of their groups, which have a closed form of their own.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.grid import Grid
from bitwright.compress.codecs.rounding.pruning import Mask, Pruned
from bitwright.compress.codecs.rounding.rounding import Rounded, grouped, joined, ungrouped, values
from bitwright.compress.models.source import Floats

_STEPS = 12
_RIDGE = 1e-4  # of the diagonal: groups of equal weights have more unknowns than levels
_AT_ONCE = 1 << 22


def refitted_weights(weights: Floats, pruned: Pruned, moments: NDArray[np.float64], *, damping: float) -> Pruned:
    """Refit the kept weights to the original `weights` `(n_rows, n_columns)`, from those of `pruned` on; `damping` is a share of the mean of the
    diagonal of H `(n_columns, n_columns)`.
    """
    h, mask = _scaled(moments, damping), pruned.mask.astype(np.float32)
    if h is None:
        return pruned
    found, scale = pruned.weights * mask, mask / h.diagonal()
    residual = ((weights - found) @ h) * mask
    step = residual * scale
    energy = (residual * step).sum(axis=1)
    for _ in range(_STEPS):
        change = (step @ h) * mask
        length = _ratio(energy, (step * change).sum(axis=1))[:, None]
        found, residual = found + length * step, residual - length * change
        energy, before = (residual**2 * scale).sum(axis=1), energy
        step = residual * scale + _ratio(energy, before)[:, None] * step
    return Pruned(pruned.mask, found)


def refitted_levels(found: Rounded, weights: Floats, mask: Mask, grid: Grid, *, group: int, moments: NDArray[np.float64]) -> Rounded:
    """Refit the levels of the codes `(n_rows, n_kept)` of the weights where the `mask` `(n_rows, n_columns)` is true, the others being zero, to
    `weights` `(n_rows, n_columns)`. A row keeps its levels where those refitted, as they are stored, are no better.
    """
    h = _scaled(moments, 0.0)
    if h is None:
        return found
    n_groups = found.placement.scale.shape[1]
    step = max(1, _AT_ONCE // (2 * n_groups * mask.shape[1]))
    rows = [slice(start, start + step) for start in range(0, len(mask), step)]
    return joined([_refitted_rows(Rounded(found.codes[at], found.placement[at]), weights[at], mask[at], grid, group, h) for at in rows] or [found])


def _refitted_rows(found: Rounded, weights: Floats, mask: Mask, grid: Grid, group: int, h: Floats) -> Rounded:
    by_group, n_groups = _design(found, mask, grid, group), found.placement.scale.shape[1]
    whole = (len(mask), -1, mask.shape[1])
    design, through = by_group.reshape(whole), _through(by_group, mask, group, h).reshape(whole)
    missing = weights - _spread(values(found, grid, group), mask)
    normal: Floats = through @ design.swapaxes(1, 2)
    right: Floats = (through @ missing[:, :, None])[:, :, 0]
    steps = [part.astype(np.float32) for part in np.split(_solved(normal, right), design.shape[1] // n_groups, axis=1)]
    refitted = Rounded(found.codes, grid.stepped(found.placement, steps))
    left = weights - _spread(values(refitted, grid, group), mask)
    with np.errstate(invalid="ignore", over="ignore"):  # levels beyond the largest half float are no better
        is_better = ((left @ h) * left).sum(axis=1) < ((missing @ h) * missing).sum(axis=1)
    is_better &= (refitted.placement.scale >= 0).all(axis=1)
    return Rounded(found.codes, refitted.placement.where(is_better[:, None], found.placement))


def _design(found: Rounded, mask: Mask, grid: Grid, group: int) -> Floats:
    """Return the derivatives of the weights of each row by its scales, and then by its minima where there are any: `(n_rows, 1 or 2, n_groups,
    n_columns)`.
    """
    n_kept, n_groups = found.codes.shape[1], found.placement.scale.shape[1]
    directions = [ungrouped(each, n_kept) for each in grid.directions(grouped(found.codes, group), found.placement)]
    rows, columns = np.nonzero(mask)
    of_group = np.broadcast_to(np.arange(n_kept) // group, found.codes.shape).reshape(-1)
    design = np.zeros((len(mask), len(directions), n_groups, mask.shape[1]), dtype=np.float32)
    for d, direction in enumerate(directions):
        design[rows, d, of_group, columns] = direction.reshape(-1)
    return design


def _through(design: Floats, mask: Mask, group: int, h: Floats) -> Floats:
    """Return `design @ h`, `(n_rows, n, n_groups, n_columns)`, without most of the zeros: among `group` columns a row keeps weights of two groups at
    most.
    """
    n_columns, found = mask.shape[1], np.zeros_like(design)
    n_kept: NDArray[np.int64] = np.cumsum(mask, axis=1)
    for start in range(0, n_columns, group):
        window = slice(start, min(start + group, n_columns))
        first: NDArray[np.int64] = (n_kept[:, start] - mask[:, start]) // group
        last: NDArray[np.int64] = (n_kept[:, window.stop - 1] - 1) // group
        for step in range(2):
            rows = np.flatnonzero(first + step <= last)
            at = first[rows] + step
            part = design[rows, :, at, window]
            found[rows, :, at] += (part.reshape(-1, part.shape[2]) @ h[window]).reshape(*part.shape[:2], n_columns)
    return found


def _solved(normal: Floats, right: Floats) -> NDArray[np.float64]:
    """Solve the normal equations of each row, `(n_rows, n, n)` and `(n_rows, n)`, with a small ridge."""
    whole, n = normal.astype(np.float64), normal.shape[1]
    diagonal = np.einsum("rii->ri", whole)
    least = 1e-12 * diagonal.max(axis=1, keepdims=True) + np.finfo(np.float32).tiny
    whole[:, np.arange(n), np.arange(n)] += np.asarray(_RIDGE * diagonal + least, dtype=np.float64)
    return np.asarray(np.linalg.solve(whole, right.astype(np.float64)[:, :, None])[:, :, 0], dtype=np.float64)


def _scaled(moments: NDArray[np.float64], damping: float) -> Floats | None:
    """Return H with a mean of 1 on its diagonal, damped; None if all moments are zero."""
    mean = moments.diagonal().mean()
    return (moments / mean + damping * np.eye(len(moments))).astype(np.float32) if mean > 0 else None


def _ratio(above: Floats, below: Floats) -> Floats:
    found: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


def _spread(kept: Floats, mask: Mask) -> Floats:
    """Return kept weights `(n_rows, n_kept)` at their places, and zeros elsewhere `(n_rows, n_columns)`."""
    found = np.zeros(mask.shape, dtype=np.float32)
    found[mask] = kept.reshape(-1)
    return found
