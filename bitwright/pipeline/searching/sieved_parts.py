"""Sieve of the parts whose loss is measured: in deep models those that change the hidden states the least.

A part that turns the hidden states far is dear to take away, and measuring it costs as much as any other. Of more blocks than `ALL_PRICED` the
half is measured that has the least influence of the part: for attention and heads 1 − E cos(x, x + a), for channels that of the feed-forward part,
and for whole blocks block influence (`predictors.part_influences`). Parts that are not measured stay whole.
"""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import StructureKind

#: blocks of which every part is measured
ALL_PRICED = 16
#: column of the influences by kind
_COLUMNS: Mapping[StructureKind, int] = {"attention": 0, "heads": 0, "channels": 1, "layers": 2}


#: blocks that are measured, by kind
Tried = Mapping[StructureKind, Collection[int]]


def all_blocks(n_blocks: int) -> Tried:
    """Return all blocks for each kind."""
    return dict.fromkeys(_COLUMNS, range(n_blocks))


def least_influential(influences: NDArray[np.float64]) -> Tried:
    """Return the half of the blocks with the least influence for each kind, from the influences of their parts `(n_blocks, 3)`."""
    n_tried = -(-len(influences) // 2)
    return {kind: np.argsort(influences[:, column], kind="stable")[:n_tried].tolist() for kind, column in _COLUMNS.items()}
