"""Interface of rounding methods: from weights to the levels of every group and the code of every weight.

One file for each method. All work on any `Grid`; rows are independent of each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.grid import Codes, Grid, Placement
from bitwright.compress.codecs.rounding.pruning import Pruned, by_wanda
from bitwright.compress.models.source import Floats
from bitwright.spaces import Pattern

Kind = TypeVar("Kind", bound=np.generic)
#: computes the placement of groups `(n_rows, n_groups, group)`, given the importance `(n_groups, group)` of their columns
Placing = Callable[[Floats, Floats, Grid], Placement]
_WEIGHTS_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Rounded:
    """Rounded weights: `codes` `(n_rows, n_columns)` and the `placement` of their levels `(n_rows, n_groups)`."""

    codes: Codes
    placement: Placement


class Rounding(ABC):
    """Rounding method."""

    @abstractmethod
    def rounded(self, weights: Floats, grid: Grid, *, group: int, importance: Floats) -> Rounded:
        """Round the `weights` `(n_rows, n_columns)` of a matrix on `grid`, with a placement for every `group` weights of a row; the last group may be
        short. `importance` is `(n_columns,)`, the mean squared activation of each input channel, constant if unknown.
        """

    def pruned(self, weights: Floats, pattern: Pattern, *, importance: Floats) -> Pruned:
        """Choose the weights to keep in a `pattern` of the matrix `(n_rows, n_columns)`; by default by Wanda's score."""
        return by_wanda(weights, pattern, importance)

    def rounded_kept(self, pruned: Pruned, grid: Grid, *, group: int) -> Rounded:
        """Round the kept weights of a matrix in groups of kept ones: codes `(n_rows, n_kept)`. By default as a matrix of their own, whose columns
        count alike.
        """
        kept = pruned.kept
        return self.rounded(kept, grid, group=group, importance=np.ones(kept.shape[1], dtype=np.float32))

    def second_moments(self, importance: Floats) -> NDArray[np.float64]:
        """Return the second moments of the inputs `(n_columns, n_columns)`, or any multiple of them: by default the importance on the diagonal."""
        return np.diag(importance.astype(np.float64))

    def for_tensor(self, tensor: str, expert: int = 0) -> "Rounding":  # noqa: ARG002
        """Return the method for one tensor, or for one expert of a stack; by default itself, which depends only on the importance."""
        return self


class RoundToNearest(Rounding):
    """Round to nearest: levels from the least to the largest weight of a group.

    The baseline of GPTQ (Frantar et al., ICLR 2023, section 4) and AMQ (Lee et al., EMNLP 2025). Levels do not depend on the importance.
    """

    def rounded(self, weights: Floats, grid: Grid, *, group: int, importance: Floats) -> Rounded:  # noqa: ARG002
        """Round each group to levels over its whole range; the importance is not used."""
        return by_rows(weights, group, lambda groups: whole_range(groups, np.empty(0, dtype=np.float32), grid), grid=grid)


def known_importance(importance: Floats, n_columns: int) -> Floats:
    """Return the importance `(n_columns,)` from how codecs are given it, `(1, n_columns)`, or `(0, n_columns)` where all channels count alike."""
    return importance[0] if len(importance) else np.ones(n_columns, dtype=np.float32)


def rounded_by(rounding: Rounding, weights: Floats, grid: Grid, *, group: int, importance: Floats) -> Rounded:
    """Round with the importance as codecs are given it: `(1, n_columns)`, or `(0, n_columns)` where it is unknown and all channels count alike."""
    known = known_importance(importance, weights.shape[1])
    return rounding.rounded(np.ascontiguousarray(weights, dtype=np.float32), grid, group=group, importance=known)


def by_rows(weights: Floats, group: int, place: Callable[[Floats], Placement], *, grid: Grid) -> Rounded:
    """Place levels by `place` on groups `(n_rows, n_groups, group)` and round to the nearest, in chunks of rows, which bounds the memory."""
    n_rows, n_columns = weights.shape
    step, parts = max(1, _WEIGHTS_AT_ONCE // n_columns), []
    for start in range(0, max(n_rows, 1), step):
        groups = grouped(weights[start : start + step], group)
        placement = place(groups)
        parts.append(Rounded(ungrouped(grid.nearest(groups, placement), n_columns), placement))
    return joined(parts)


def grouped(rows: NDArray[Kind], group: int) -> NDArray[Kind]:
    """Reshape rows to `(n_rows, n_groups, group)`; a short last group is padded with its last weight, which changes neither its least nor its
    largest.
    """
    n_columns = rows.shape[1]
    n_groups = -(-n_columns // group)
    return np.pad(rows, ((0, 0), (0, n_groups * group - n_columns)), mode="edge").reshape(len(rows), n_groups, group)


def grouped_importance(importance: Floats, group: int) -> Floats:
    """Reshape `importance` `(n_columns,)` to `(n_groups, group)`; the padding of a short last group has importance 0.

    A channel without tokens gets a small importance, since other text may reach it.
    """
    n_groups = -(-len(importance) // group)
    mean = importance.mean(dtype=np.float64)
    floored = np.maximum(importance, 1e-5 * mean) / mean if mean > 0 else np.ones(len(importance))
    return np.pad(floored, (0, n_groups * group - len(importance))).reshape(n_groups, group).astype(np.float32)


def ungrouped(parts: NDArray[Kind], n_columns: int) -> NDArray[Kind]:
    """Reshape groups to rows `(n_rows, n_columns)`: the inverse of `grouped`."""
    return parts.reshape(len(parts), parts.shape[1] * parts.shape[2])[:, :n_columns]


def whole_range(groups: Floats, importance: Floats, grid: Grid) -> Placement:  # noqa: ARG001
    """Return the placement `(...)` by which the grid covers groups `(..., group)`; importance is not used."""
    return grid.covering(groups)


def values(found: Rounded, grid: Grid, group: int) -> Floats:
    """Dequantize codes and placements to weights `(n_rows, n_columns)`."""
    n_rows, n_columns = found.codes.shape
    step = max(1, _WEIGHTS_AT_ONCE // n_columns)
    expanded = np.empty((n_rows, n_columns), dtype=np.float32)
    for start in range(0, n_rows, step):
        rows = slice(start, start + step)
        expanded[rows] = ungrouped(grid.values(grouped(found.codes[rows], group), found.placement[rows]), n_columns)
    return expanded


def joined(parts: list[Rounded]) -> Rounded:
    """Concatenate rows."""
    if len(parts) == 1:
        return parts[0]
    places = [part.placement.parts for part in parts]
    return Rounded(np.concatenate([part.codes for part in parts]), Placement(*(np.concatenate(column) for column in zip(*places, strict=True))))
