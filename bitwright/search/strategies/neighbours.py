"""Choices near a given one that keep the budget: exchanges of bits between units."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.instance import room_bits
from bitwright.search.solvers.rungs import Heights, Rungs
from bitwright.spaces import Choice, Choices, Space

#: units `(n_units,)` with the same number belong to one group
Groups = Callable[[Space], NDArray[np.int64]]


def by_size(space: Space) -> NDArray[np.int64]:
    """Units that cost the same number of bits in each format are a group `(n_units,)`: they trade level for level."""
    groups: NDArray[np.int64] = np.unique(np.where(space.offered, space.size_bits, -1), axis=0, return_inverse=True)[1].ravel()
    return groups


def by_kind(space: Space) -> NDArray[np.int64]:
    """Units of one kind (`attn_q`) are a group `(n_units,)`."""
    groups: NDArray[np.int64] = np.unique([unit.kind for unit in space.units], return_inverse=True)[1]
    return groups


def all_together(space: Space) -> NDArray[np.int64]:
    """All units are one group `(n_units,)`."""
    return np.zeros(len(space.units), dtype=np.int64)


class Neighbourhood:
    """The choices around any given one whose files have at most `budget_bits`.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """

    def __init__(self, space: Space, budget_bits: int, groups: Groups) -> None:
        self._rungs, self._room, self._groups = Rungs(space), room_bits(space, budget_bits), groups(space)

    def mutated(self, choice: Choice, rng: np.random.Generator) -> Choice:
        """`choice` `(n_units,)` with one to three random units raised by a level, and others of their groups lowered until the budget holds again.

        The size-keeping mutation of EvoPress (Sieberling et al., ICML 2025, arXiv 2410.14649): k = min(U{1, 2, 3}, U{1, 2, 3}) units. One whose
        group cannot pay stays where it is. Where levels are equally far apart and nothing more fits, every group of equal units keeps its bits
        exactly.
        """
        heights, up = self._rungs.of(choice), np.zeros(len(choice), dtype=np.bool_)
        for _ in range(rng.integers(1, 4, size=2).min()):
            if len(below := np.flatnonzero(heights < self._rungs.top)):
                unit = rng.choice(below)
                up[unit] = True
                heights = self._exchanged(heights, unit, (self._groups == self._groups[unit]) & ~up, rng)
        return self._rungs.choices(heights)

    def walked(self, choice: Choice, n_steps: int, rng: np.random.Generator) -> Choice:
        """`choice` `(n_units,)` after `n_steps` mutations, each of what the one before left."""
        for _ in range(n_steps):
            choice = self.mutated(choice, rng)
        return choice

    def _exchanged(self, heights: Heights, unit: int, payers: NDArray[np.bool_], rng: np.random.Generator) -> Heights:
        """`heights` with `unit` raised by a level and random ones of `payers` `(n_units,)` lowered until the budget holds, or as they are."""
        bits, after = self._rungs.bits, heights.copy()
        after[unit] += 1
        left = self._room - int(self._rungs.spent(after))
        while left < 0:
            above = np.flatnonzero(payers & (after > 0))
            if not len(above):
                return heights
            payer = rng.choice(above)
            after[payer] -= 1
            left += int(bits[payer, after[payer] + 1] - bits[payer, after[payer]])
        return after

    def swaps(self, choice: Choice, *, n_at_most: int, rng: np.random.Generator) -> Choices:
        """Exchanges between two units of `choice` `(n_units,)`: `(n, n_units)`, of more than `n_at_most` a random selection.

        One unit a level up and another as many down as pay for it; one a level down and another as many up as that pays for, where these are two or
        more; one alone a level up where it fits, or down, which may be no loss.
        """
        heights = self._rungs.of(choice)
        moves = np.concatenate([self._rises(heights), self._falls(heights), self._alone(heights)])
        if len(moves) > n_at_most:
            moves = moves[np.sort(rng.choice(len(moves), n_at_most, replace=False))]
        after = np.tile(heights, (len(moves), 1))
        rows = np.arange(len(moves))
        after[rows, moves[:, 0]] += moves[:, 1]
        after[rows, moves[:, 2]] -= moves[:, 3]
        return self._rungs.choices(after)

    def _rises(self, heights: Heights) -> NDArray[np.int64]:
        """(unit, 1, payer, levels down) of every unit that needs another to pay for its next level: `(n, 4)`."""
        needed = self._rungs.step_up(heights) - self._left(heights)
        units = np.flatnonzero((heights < self._rungs.top) & (needed > 0))
        moves = []
        for payer in np.flatnonzero(heights > 0):
            bits = self._rungs.bits[payer, heights[payer] :: -1]  # downwards
            down = np.searchsorted(bits[0] - bits, needed[units])
            pays = (down < len(bits)) & (units != payer)
            moves.append(_moves(units[pays], 1, payer, down[pays]))
        return np.concatenate(moves) if moves else _moves(units[:0], 1, 0, 0)

    def _falls(self, heights: Heights) -> NDArray[np.int64]:
        """(unit, levels up, payer, 1) wherever one level of a payer buys another unit two or more: `(n, 4)`."""
        payers = np.flatnonzero(heights > 0)
        freed = self._left(heights) + self._rungs.bits[payers, heights[payers]] - self._rungs.bits[payers, heights[payers] - 1]
        moves = [_moves(payers[:0], 1, 0, 0)]
        for unit in np.flatnonzero(self._rungs.top - heights > 1):
            bits = self._rungs.bits[unit, heights[unit] : self._rungs.n_rungs[unit]]
            up = np.searchsorted(bits - bits[0], freed, side="right") - 1
            buys = (up > 1) & (payers != unit)
            moves.append(_moves(unit, up[buys], payers[buys], 1))
        return np.concatenate(moves)

    def _alone(self, heights: Heights) -> NDArray[np.int64]:
        """(unit, 1, unit, 0) where it fits and (unit, 0, unit, 1): `(n, 4)`."""
        up, down = np.flatnonzero(self._rungs.step_up(heights) <= self._left(heights)), np.flatnonzero(heights > 0)
        return np.concatenate([_moves(up, 1, up, 0), _moves(down, 0, down, 1)])

    def _left(self, heights: Heights) -> int:
        return self._room - int(self._rungs.spent(heights))


def _moves(*columns: NDArray[np.int64] | np.integer | int) -> NDArray[np.int64]:
    return np.stack(np.broadcast_arrays(*columns), axis=1)
