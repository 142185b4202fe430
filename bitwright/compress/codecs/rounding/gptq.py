"""GPTQ (Frantar, Ashkboos, Hoefler & Alistarh, ICLR 2023): the error of each column is compensated by the columns after it.

With the second moments H = 2 X Xᵀ of a layer's inputs, all rows are rounded column by column, in the order of the paper's Algorithm 1; T is the upper
Cholesky factor of (H + λ I)⁻¹, with λ a fraction of the mean of H's diagonal:

    e      = (w_i − q_i) / T_ii
    w_{i:} = w_{i:} − e · T_{i,i:}          (equations 2 and 4; at once within a block of columns, for all later ones when the block is done)

The scale of a group is computed beforehand from the original weights, or, "as they come", from the current weights when its first column is due. The
authors' program does the latter, but between blocks of columns alone; llm-compressor does the former. Differs from both in that groups are those of
the stored order whatever the order of columns, and in that a channel without tokens keeps its weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dtrtri

from bitwright.compress.codecs.grid import Codes, Grid, Placement
from bitwright.compress.codecs.rounding.rounding import Placing, Rounded, Rounding, by_rows, grouped, grouped_importance, whole_range
from bitwright.compress.models.source import Floats

#: the diagonal of H `(n_columns,)` -> order of columns `(n_columns,)`
Order = Callable[[NDArray[np.float64]], NDArray[np.int64]]


def by_activation(diagonal: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sort channels by descending activation ("act-order" of the authors' program)."""
    return np.argsort(-diagonal, kind="stable")


def as_stored(diagonal: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the stored order, from the first column to the last."""
    return np.arange(len(diagonal))


@dataclass(frozen=True, eq=False)
class Gptq(Rounding):
    """GPTQ. `moments` maps each tensor to X Xᵀ, or any multiple of it, `(n_experts, n_columns, n_columns)`; a tensor missing from it, such as an
    embedding, is rounded to nearest. `place` computes the levels of a group, `when` says from which weights.
    """

    moments: Mapping[str, Floats]
    place: Placing = whole_range
    when: Literal["beforehand", "as they come"] = "beforehand"
    order: Order = by_activation
    damping: float = 0.01
    block: int = 128
    tensor: str = ""
    expert: int = 0

    def for_tensor(self, tensor: str, expert: int = 0) -> "Gptq":
        """Return the rounding with the second moments of one tensor, or of one expert of a stack."""
        return replace(self, tensor=tensor, expert=expert)

    def rounded(self, weights: Floats, grid: Grid, *, group: int, importance: Floats) -> Rounded:
        """Round column by column and add each error to later columns; without second moments, round each group by itself."""
        if self.tensor not in self.moments:
            channels = grouped_importance(importance, group)
            return by_rows(weights, group, lambda groups: self.place(groups, channels, grid), grid=grid)
        moments = self.moments[self.tensor][self.expert].astype(np.float64)
        diagonal = moments.diagonal()
        order = self.order(diagonal)
        channels = grouped_importance(diagonal.astype(np.float32), group)
        work = _Work(weights, grid, group, channels=channels, order=order, place=self.place)
        if self.when == "beforehand":
            work.place_all(weights)
        work.run(factor(moments[np.ix_(order, order)], self.damping), self.block)
        return Rounded(work.codes, work.placement)


def factor(moments: NDArray[np.float64], damping: float) -> Floats:
    """Return T `(n_columns, n_columns)`, upper triangular with Tᵀ T = (H + λ I)⁻¹; the identity if all moments are zero."""
    mean = moments.diagonal().mean()
    if mean <= 0:
        return np.eye(len(moments), dtype=np.float32)
    damped = 2 * moments / mean  # only ratios matter
    unseen = damped.diagonal() <= 0
    damped[unseen, unseen] = 2.0
    damped[np.diag_indices(len(damped))] += 2 * damping
    # H = U Uᵀ with U upper triangular, the Cholesky factor with rows and columns in reverse; then T = U⁻¹, without the inverse of H
    upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    return np.asarray(dtrtri(upper, lower=0)[0], dtype=np.float32)


class _Work:
    """State of GPTQ: `w` `(n_rows, n_columns)` are the current weights, columns in the order in which they are rounded."""

    def __init__(self, weights: Floats, grid: Grid, group: int, *, channels: Floats, order: NDArray[np.int64], place: Placing) -> None:
        self._w, self._grid, self._group = weights[:, order].astype(np.float32), grid, group
        self._channels, self._order, self._place = channels, order, place
        self._where = np.argsort(order)  # stored column -> its position in the order
        n_rows, n_groups = len(weights), len(channels)
        self.codes: Codes = np.zeros(weights.shape, dtype=np.uint8)
        self.placement = Placement(*(np.zeros((n_rows, n_groups), dtype=np.float32) for _ in range(3)))
        self._placed = np.zeros(n_groups, dtype=bool)

    def place_all(self, weights: Floats) -> None:
        """Place the levels of all groups by the original weights `(n_rows, n_columns)`."""
        self.placement = by_rows(weights, self._group, lambda groups: self._place(groups, self._channels, self._grid), grid=self._grid).placement
        self._placed[:] = True

    def run(self, t: Floats, block: int) -> None:
        """Round all columns, with lazy updates after every `block` of them."""
        n_columns = len(t)
        for start in range(0, n_columns, block):
            stop = min(start + block, n_columns)
            errors = np.zeros((len(self._w), stop - start), dtype=np.float32)
            for i in range(start, stop):
                g = int(self._order[i]) // self._group
                if not self._placed[g]:
                    self._place_group(g, stop, errors, t[start:stop])
                errors[:, i - start] = (self._w[:, i] - self._round(i, g)) / t[i, i]
                self._w[:, i:stop] -= errors[:, i - start, None] * t[i, i:stop]  # equation 2, within the block
            self._w[:, stop:] -= errors @ t[start:stop, stop:]  # equation 4, lazily for the rest

    def _place_group(self, g: int, stop: int, errors: Floats, t: Floats) -> None:
        """Place the levels of a group by its current weights; its columns from `stop` on still lack the `errors` `(n_rows, block)` of this block,
        propagated by `t` `(block, n_columns)`.
        """
        columns = self._where[g * self._group : (g + 1) * self._group]
        late = columns >= stop
        current = self._w[:, columns]
        current[:, late] -= errors @ t[:, columns[late]]
        found = self._place(grouped(current, self._group), self._channels[g : g + 1], self._grid)
        self.placement.scale[:, g], self.placement.anchor[:, g], self.placement.offset[:, g] = (
            found.scale[:, 0],
            found.anchor[:, 0],
            found.offset[:, 0],
        )
        self._placed[g] = True

    def _round(self, i: int, g: int) -> Floats:
        """Return the levels `(n_rows,)` of the column at position `i`."""
        at = self.placement[:, g]
        codes = self._grid.nearest(self._w[:, i, None], at)
        self.codes[:, self._order[i]] = codes[:, 0]
        rounded: Floats = self._grid.values(codes, at)[:, 0]
        return rounded
