"""SparseGPT (Frantar & Alistarh, ICML 2023): masks chosen while columns are pruned with error feedback, and codes of what they keep.

A weight's score is w² / T_ii² of the current weights, the error that pruning it leaves behind (its equation 4). The mask of n of m is chosen when
the first of its m columns is due, that of a share for a block of columns at a time. Differs from the authors' program in that every row keeps equally
many: the score of the original weights says how many of them in each block; and in that pruning runs first, what is kept is refitted by least squares
(`least_squares.py`), levels are placed on that, and codes are settled after it. The authors' joint pass, which chooses a block's mask from weights
that earlier codes have moved too, was 0 to 4 % better before the refit and is 0 to 2 % worse after it (docs/sparsity.md).
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.grid import Codes, Grid, Placement
from bitwright.compress.codecs.rounding.feedback import Feedback
from bitwright.compress.codecs.rounding.pruning import Mask, Pruned, first_ranks, gathered, largest
from bitwright.compress.codecs.rounding.rounding import Rounded
from bitwright.compress.models.source import Floats
from bitwright.spaces import NOfM, Pattern


def pruned_with_feedback(work: Feedback, pattern: Pattern, *, block: int) -> Pruned:
    """Prune the weights of `work`, whose columns are in their stored order, and update the kept ones."""
    n_columns = work.w.shape[1]
    mask, scale = np.zeros(work.w.shape, dtype=bool), np.reciprocal(work.t.diagonal())
    window = pattern.of if isinstance(pattern, NOfM) else block
    counts = kept_in_windows(work.w, pattern, scale, window)

    def settle(i: int) -> Floats:
        if i % window == 0:
            columns = np.arange(i, min(i + window, n_columns))
            mask[:, columns] = first_ranks(np.abs(work.current(columns) * scale[columns]), counts[:, i // window])
        kept: Floats = work.w[:, i] * mask[:, i]
        return kept

    work.run(settle, block)
    return Pruned(mask, work.w * mask)


def kept_in_windows(weights: Floats, pattern: Pattern, scale: Floats, window: int) -> NDArray[np.int64]:
    """Return how many weights each row keeps in every window of columns `(n_rows, n_windows)`."""
    mask = largest(np.abs(weights * scale), pattern)
    counts: NDArray[np.int64] = np.add.reduceat(mask, np.arange(0, mask.shape[1], window), axis=1, dtype=np.int64)
    return counts


def codes_of_kept(work: Feedback, order: NDArray[np.int64], mask: Mask, grid: Grid, *, placement: Placement, group: int, block: int) -> Rounded:
    """Settle the pruned columns of `work` at the levels of their groups of kept weights, or at zero where the `mask` `(n_rows, n_columns)` is false.

    `order` are the stored columns in the order of settling, that of `work`; `placement` is `(n_rows, n_groups)`.
    """
    codes: Codes = np.zeros(mask.shape, dtype=np.uint8)
    rows, groups = np.arange(len(mask)), np.maximum(np.cumsum(mask, axis=1) - 1, 0) // group

    def settle(i: int) -> Floats:
        column = int(order[i])
        at = placement[rows, groups[:, column]]
        found = grid.nearest(work.w[:, i, None], at)
        codes[:, column] = found[:, 0]
        level: Floats = grid.values(found, at)[:, 0] * mask[:, column]
        return level

    work.run(settle, block)
    return Rounded(gathered(codes, mask), placement)
