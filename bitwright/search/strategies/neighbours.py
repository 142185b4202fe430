"""Neighbourhood of a choice within a budget: exchanges of bits between units."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.format_ranks import FormatRanks, RankArray
from bitwright.search.solvers.instance import room_bits
from bitwright.spaces import Choice, Choices, Space

#: a space -> the group index of each unit `(n_units,)`
Groups = Callable[[Space], NDArray[np.int64]]


def by_size(space: Space) -> NDArray[np.int64]:
    """Group units that take the same bits in each format `(n_units,)`: they exchange rank for rank."""
    groups: NDArray[np.int64] = np.unique(np.where(space.offered, space.size_bits, -1), axis=0, return_inverse=True)[1].ravel()
    return groups


def by_kind(space: Space) -> NDArray[np.int64]:
    """Group units by kind (`attn_q`) `(n_units,)`."""
    groups: NDArray[np.int64] = np.unique([unit.kind for unit in space.units], return_inverse=True)[1]
    return groups


def all_together(space: Space) -> NDArray[np.int64]:
    """Put all units into one group `(n_units,)`."""
    return np.zeros(len(space.units), dtype=np.int64)


class Neighbourhood:
    """Neighbours of a choice whose files have at most `budget_bits`.

    Raises:
        BudgetError: the smallest file is larger than the budget.
    """

    def __init__(self, space: Space, budget_bits: int, groups: Groups) -> None:
        self._format_ranks, self._room, self._groups = FormatRanks(space), room_bits(space, budget_bits), groups(space)

    def mutated(self, choice: Choice, rng: np.random.Generator) -> Choice:
        """Raise one to three random units of `choice` `(n_units,)` by one rank, and lower others of their groups until it fits the budget again.

        The size-preserving mutation of EvoPress (Sieberling et al., ICML 2025, arXiv 2410.14649): k = min(U{1, 2, 3}, U{1, 2, 3}) units. A unit whose
        group cannot pay is not raised. Where ranks are equally far apart and nothing more fits, every group of equal units keeps its bits exactly.
        """
        ranks, up = self._format_ranks.ranks(choice), np.zeros(len(choice), dtype=np.bool_)
        for _ in range(rng.integers(1, 4, size=2).min()):
            if len(below := np.flatnonzero(ranks < self._format_ranks.top)):
                unit = rng.choice(below)
                up[unit] = True
                ranks = self._exchanged(ranks, unit, (self._groups == self._groups[unit]) & ~up, rng)
        return self._format_ranks.choices(ranks)

    def walked(self, choice: Choice, n_steps: int, rng: np.random.Generator) -> Choice:
        """Return `choice` `(n_units,)` after `n_steps` successive mutations."""
        for _ in range(n_steps):
            choice = self.mutated(choice, rng)
        return choice

    def _exchanged(self, ranks: RankArray, unit: int, payers: NDArray[np.bool_], rng: np.random.Generator) -> RankArray:
        """Raise `unit` by one rank and lower random `payers` `(n_units,)` until the budget holds; return `ranks` unchanged where they cannot pay."""
        bits, after = self._format_ranks.bits, ranks.copy()
        after[unit] += 1
        left = self._room - int(self._format_ranks.spent(after))
        while left < 0:
            above = np.flatnonzero(payers & (after > 0))
            if not len(above):
                return ranks
            payer = rng.choice(above)
            after[payer] -= 1
            left += int(bits[payer, after[payer] + 1] - bits[payer, after[payer]])
        return after

    def swaps(self, choice: Choice, *, n_at_most: int, rng: np.random.Generator) -> Choices:
        """Return the exchanges between two units of `choice` `(n_units,)`: `(n, n_units)`, a random sample where there are more than `n_at_most`.

        One unit a rank up and another as many down as pay for it; one a rank down and another up by two or more ranks, as many as that pays for; one
        alone a rank up where it fits, or down, which may cost nothing.
        """
        ranks = self._format_ranks.ranks(choice)
        moves = np.concatenate([self._rises(ranks), self._falls(ranks), self._alone(ranks)])
        if len(moves) > n_at_most:
            moves = moves[np.sort(rng.choice(len(moves), n_at_most, replace=False))]
        after = np.tile(ranks, (len(moves), 1))
        rows = np.arange(len(moves))
        after[rows, moves[:, 0]] += moves[:, 1]
        after[rows, moves[:, 2]] -= moves[:, 3]
        return self._format_ranks.choices(after)

    def _rises(self, ranks: RankArray) -> NDArray[np.int64]:
        """Return (unit, 1, payer, ranks down) of every unit that needs another to pay for its next rank: `(n, 4)`."""
        needed = self._format_ranks.step_up(ranks) - self._left(ranks)
        units = np.flatnonzero((ranks < self._format_ranks.top) & (needed > 0))
        moves = []
        for payer in np.flatnonzero(ranks > 0):
            bits = self._format_ranks.bits[payer, ranks[payer] :: -1]  # downwards
            down = np.searchsorted(bits[0] - bits, needed[units])
            pays = (down < len(bits)) & (units != payer)
            moves.append(_moves(units[pays], 1, payer, down[pays]))
        return np.concatenate(moves) if moves else _moves(units[:0], 1, 0, 0)

    def _falls(self, ranks: RankArray) -> NDArray[np.int64]:
        """Return (unit, ranks up, payer, 1) wherever one rank of a payer buys another unit two or more: `(n, 4)`."""
        payers = np.flatnonzero(ranks > 0)
        freed = self._left(ranks) + self._format_ranks.bits[payers, ranks[payers]] - self._format_ranks.bits[payers, ranks[payers] - 1]
        moves = [_moves(payers[:0], 1, 0, 0)]
        for unit in np.flatnonzero(self._format_ranks.top - ranks > 1):
            bits = self._format_ranks.bits[unit, ranks[unit] : self._format_ranks.n_ranks[unit]]
            up = np.searchsorted(bits - bits[0], freed, side="right") - 1
            buys = (up > 1) & (payers != unit)
            moves.append(_moves(unit, up[buys], payers[buys], 1))
        return np.concatenate(moves)

    def _alone(self, ranks: RankArray) -> NDArray[np.int64]:
        """Return (unit, 1, unit, 0) where that fits, and (unit, 0, unit, 1): `(n, 4)`."""
        up, down = np.flatnonzero(self._format_ranks.step_up(ranks) <= self._left(ranks)), np.flatnonzero(ranks > 0)
        return np.concatenate([_moves(up, 1, up, 0), _moves(down, 0, down, 1)])

    def _left(self, ranks: RankArray) -> int:
        return self._room - int(self._format_ranks.spent(ranks))


def _moves(*columns: NDArray[np.int64] | np.integer | int) -> NDArray[np.int64]:
    return np.stack(np.broadcast_arrays(*columns), axis=1)
