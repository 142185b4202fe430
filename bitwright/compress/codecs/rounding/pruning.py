"""Masks of weights to keep, by a score of every weight, and weights gathered by them.

The score is Wanda's |w| · ‖x‖, x the inputs of the weight's channel (Sun, Liu, Bair & Kolter, ICLR 2024, equation 1), compared within a row; without
importance it is the magnitude |w|. SparseGPT's is in `gptq.py`.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.models.source import Floats
from bitwright.spaces import NOfM, Pattern

Kind = TypeVar("Kind", bound=np.generic)
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pruned:
    """Pruned matrix: the `mask` of weights that are kept and the `weights`, which pruning may have changed, both `(n_rows, n_columns)`."""

    mask: Mask
    weights: Floats

    @property
    def kept(self) -> Floats:
        """Return the kept weights `(n_rows, n_kept)`."""
        return gathered(self.weights, self.mask)

    @property
    def n_bytes(self) -> int:
        """Return the bytes of both in memory."""
        return self.mask.nbytes + self.weights.nbytes


def by_wanda(weights: Floats, pattern: Pattern, importance: Floats) -> Pruned:
    """Keep the weights `(n_rows, n_columns)` with the largest score, and change none; `importance` is `(n_columns,)`."""
    return Pruned(largest(wanda(weights, importance), pattern), weights)


def wanda(weights: Floats, importance: Floats) -> Floats:
    """Return |w| √d `(n_rows, n_columns)`, d `(n_columns,)` the mean squared activation of each input channel.

    A channel that no token reached counts like the mean of the others, since other text may reach it.
    """
    seen = importance > 0
    mean = float(importance[seen].mean(dtype=np.float64)) if seen.any() else 1.0
    channels = np.sqrt(np.where(seen, importance / mean, 1)).astype(np.float32)
    found: Floats = np.abs(weights) * channels
    return found


def largest(scores: Floats, pattern: Pattern) -> Mask:
    """Return the mask `(n_rows, n_columns)` of the largest scores in every row, or of n in every m; among equal ones the first are kept."""
    n_rows, n_columns = scores.shape
    among = pattern.of if isinstance(pattern, NOfM) else n_columns
    parts = scores.reshape(n_rows, -1, among)
    return first_ranks(parts, np.full(parts.shape[:-1], pattern.n_kept(among))).reshape(n_rows, n_columns)


def first_ranks(scores: Floats, counts: NDArray[np.int64]) -> Mask:
    """Return a mask `(..., n)` of the `counts` `(...)` largest of `scores` `(..., n)`."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(scores.shape[-1]), order.shape), axis=-1)
    found: Mask = ranks < counts[..., None]
    return found


def gathered(values: NDArray[Kind], mask: Mask) -> NDArray[Kind]:
    """Return the values where the mask is true, `(n_rows, n_kept)`: every row keeps equally many."""
    found: NDArray[Kind] = values[mask].reshape(len(values), -1)
    return found
