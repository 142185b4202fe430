"""GPTQ (Frantar, Ashkboos, Hoefler & Alistarh, ICLR 2023): the error of each column is compensated by the columns after it.

With the second moments H = 2 X Xᵀ of a layer's inputs, all rows are rounded column by column, in the order of the paper's Algorithm 1, with the error
feedback of `feedback.py`; λ in it is a fraction of the mean of H's diagonal. Weights are pruned in the same way (`sparse_gpt.py`).

The scale of a group is computed beforehand from the original weights, or, "as they come", from the current weights when its first column is due. The
authors' program does the latter, but between blocks of columns alone; llm-compressor does the former. Differs from both in that groups are those of
the stored order whatever the order of columns, and in that a channel without tokens keeps its weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.grid import Codes, Grid, Placement
from bitwright.compress.codecs.rounding.feedback import Feedback, factor
from bitwright.compress.codecs.rounding.least_squares import refitted_weights
from bitwright.compress.codecs.rounding.pruning import Pruned, by_wanda
from bitwright.compress.codecs.rounding.rounding import Placing, Rounded, Rounding, by_rows, grouped, grouped_importance, whole_range
from bitwright.compress.codecs.rounding.sparse_gpt import codes_of_kept, pruned_with_feedback
from bitwright.compress.models.source import Floats
from bitwright.spaces import Pattern

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
        if not self.knows_moments:
            channels = grouped_importance(importance, group)
            return by_rows(weights, group, lambda groups: self.place(groups, channels, grid), grid=grid)
        feedback, order = self.feedback(weights, self.order)
        channels = grouped_importance(self._moments.diagonal().astype(np.float32), group)
        work = _Work(weights, feedback, grid, group=group, channels=channels, order=order, place=self.place)
        if self.when == "beforehand":
            work.place_all(weights)
        work.run(self.block)
        return Rounded(work.codes, work.placement)

    def pruned(self, weights: Floats, pattern: Pattern, *, importance: Floats) -> Pruned:
        """Choose masks column by column, add each error to later columns (SparseGPT), and refit what is kept by least squares; without second
        moments, choose by Wanda's score.
        """
        if not self.knows_moments:
            return by_wanda(weights, pattern, importance)
        feedback, _ = self.feedback(weights, as_stored)
        return refitted_weights(weights, pruned_with_feedback(feedback, pattern, block=self.block), self._moments, damping=self.damping)

    def rounded_kept(self, pruned: Pruned, grid: Grid, *, group: int) -> Rounded:
        """Round kept weights and leave the others at zero, column by column, and add each error to later columns."""
        kept = pruned.kept
        channels = np.ones((-(-kept.shape[1] // group), group), dtype=np.float32)
        nearest = by_rows(kept, group, lambda groups: self.place(groups, channels, grid), grid=grid)
        if not self.knows_moments:
            return nearest
        feedback, order = self.feedback(pruned.weights, self.order)
        return codes_of_kept(feedback, order, pruned.mask, grid, placement=nearest.placement, group=group, block=self.block)

    def second_moments(self, importance: Floats) -> NDArray[np.float64]:
        """Return those of the tensor, or the importance on the diagonal where they are unknown."""
        return self._moments if self.knows_moments else np.diag(importance.astype(np.float64))

    @property
    def knows_moments(self) -> bool:
        """Return whether the second moments of the tensor are known."""
        return self.tensor in self.moments

    @property
    def _moments(self) -> NDArray[np.float64]:
        """Return X Xᵀ of the tensor `(n_columns, n_columns)`."""
        moments: NDArray[np.float64] = self.moments[self.tensor][self.expert].astype(np.float64)
        return moments

    def feedback(self, weights: Floats, by: Order) -> tuple[Feedback, NDArray[np.int64]]:
        """Return the weights to settle in the order `by`, and the order `(n_columns,)`."""
        order = by(self._moments.diagonal())
        return Feedback(weights[:, order], factor(self._moments[np.ix_(order, order)], self.damping)), order


class _Work:
    """State of GPTQ: `feedback` has the current weights `(n_rows, n_columns)`, columns in the order in which they are rounded."""

    def __init__(
        self, weights: Floats, feedback: Feedback, grid: Grid, *, group: int, channels: Floats, order: NDArray[np.int64], place: Placing
    ) -> None:
        self._feedback, self._grid, self._group = feedback, grid, group
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

    def run(self, block: int) -> None:
        """Round all columns, with lazy updates after every `block` of them."""
        self._feedback.run(self._settled, block)

    def _settled(self, i: int) -> Floats:
        """Return the levels `(n_rows,)` of the column at position `i`."""
        g = int(self._order[i]) // self._group
        if not self._placed[g]:
            self._place_group(g)
        at = self.placement[:, g]
        codes = self._grid.nearest(self._feedback.w[:, i, None], at)
        self.codes[:, self._order[i]] = codes[:, 0]
        rounded: Floats = self._grid.values(codes, at)[:, 0]
        return rounded

    def _place_group(self, g: int) -> None:
        """Place the levels of a group by its current weights."""
        current = self._feedback.current(self._where[g * self._group : (g + 1) * self._group])
        found = self._place(grouped(current, self._group), self._channels[g : g + 1], self._grid)
        self.placement.scale[:, g], self.placement.anchor[:, g], self.placement.offset[:, g] = (
            found.scale[:, 0],
            found.anchor[:, 0],
            found.offset[:, 0],
        )
        self._placed[g] = True
