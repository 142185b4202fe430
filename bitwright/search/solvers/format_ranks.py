"""Format ranks: the offered formats of each unit in ascending size have the ranks 0, 1, 2, ..., so that "one rank up" is defined.

Of formats of equal size the one that comes first in the space has the lower rank.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from bitwright.search.solvers.instance import extra_bits
from bitwright.spaces import Choices, Space

#: the rank of each unit's format, `(n_units,)` or `(n, n_units)`
RankArray = NDArray[np.int64]

_NEVER = np.iinfo(np.int64).max // 4  # bits of a rank that does not exist: the sum of two does not overflow


class FormatRanks:
    """Format ranks of all units.

    `n_ranks` `(n_units,)` counts them, `bits` `(n_units, most ranks)` holds the bits of each beyond the unit's lowest, more than any budget where a
    unit has no such rank.
    """

    def __init__(self, space: Space) -> None:
        bits = np.where(space.offered, extra_bits(space), _NEVER)
        self.n_ranks: NDArray[np.int64] = space.offered.sum(axis=1)
        self._option = np.argsort(bits, axis=1, kind="stable")[:, : self.n_ranks.max()]
        self._rank = np.argsort(np.argsort(bits, axis=1, kind="stable"), axis=1, kind="stable")
        self._unit = np.arange(len(bits))
        self.bits: NDArray[np.int64] = np.take_along_axis(bits, self._option, axis=1)

    @property
    def top(self) -> RankArray:
        """Highest rank of every unit `(n_units,)`."""
        return self.n_ranks - 1

    def ranks(self, choices: Choices) -> RankArray:
        """Map choices `(..., n_units)` to ranks `(..., n_units)`."""
        return self._rank[self._unit, choices]

    def choices(self, ranks: RankArray) -> Choices:
        """Map ranks `(..., n_units)` to choices `(..., n_units)`."""
        return self._option[self._unit, ranks]

    def spent(self, ranks: RankArray) -> NDArray[np.int64]:
        """Return the bits beyond the smallest file for ranks `(..., n_units)`: shape `(...)`."""
        spent: NDArray[np.int64] = self.bits[self._unit, ranks].sum(axis=-1)
        return spent

    def step_up(self, ranks: RankArray) -> NDArray[np.int64]:
        """Return the bits that one rank more costs each unit at ranks `(n_units,)`; more than any budget at the top."""
        above = self.bits[self._unit, np.minimum(ranks + 1, self.top)]
        return np.where(ranks < self.top, above - self.bits[self._unit, ranks], _NEVER)


def lowered(format_ranks: FormatRanks, ranks: RankArray, room_bits: int, rng: np.random.Generator) -> RankArray:
    """Lower random units of `ranks` `(n_units,)` by one rank at a time until all spend at most `room_bits`."""
    ranks, spent = ranks.copy(), int(format_ranks.spent(ranks))
    while spent > room_bits:
        unit = rng.choice(np.flatnonzero(ranks > 0))
        ranks[unit] -= 1
        spent -= int(format_ranks.bits[unit, ranks[unit] + 1] - format_ranks.bits[unit, ranks[unit]])
    return ranks


def raised(format_ranks: FormatRanks, ranks: RankArray, room_bits: int, rng: np.random.Generator) -> RankArray:
    """Raise random units of `ranks` `(n_units,)` by one rank at a time as long as any step fits into `room_bits`."""
    ranks, left = ranks.copy(), room_bits - int(format_ranks.spent(ranks))
    while len(fits := np.flatnonzero((steps := format_ranks.step_up(ranks)) <= left)):
        unit = rng.choice(fits)
        left -= int(steps[unit])
        ranks[unit] += 1
    return ranks


def random_ranks(format_ranks: FormatRanks, target_bits: float, n: int, rng: np.random.Generator) -> RankArray:
    """Draw `n` random ranks `(n, n_units)` that spend `target_bits` on average; all that spend the same are equally likely.

    A Boltzmann sampler (Duchon, Flajolet, Louchard & Schaeffer, Combinatorics, Probability and Computing 13, 2004): each unit is drawn on its own
    with probabilities proportional to exp(-λ bits), with λ solved for the mean.
    """
    cumulative = _cumulative(format_ranks, target_bits)
    ranks: RankArray = (rng.random((n, len(cumulative), 1)) >= cumulative).sum(axis=2)
    return ranks


@lru_cache(maxsize=1)  # a search within a budget draws at one target, one choice at a time
def _cumulative(format_ranks: FormatRanks, target_bits: float) -> NDArray[np.float64]:
    """Return the cumulative probabilities of `_probabilities` `(n_units, most ranks)`."""
    cumulative: NDArray[np.float64] = np.cumsum(_probabilities(format_ranks, target_bits), axis=1)
    cumulative[np.arange(cumulative.shape[1]) >= format_ranks.top[:, None]] = 1.0  # despite rounding
    return cumulative


def _probabilities(format_ranks: FormatRanks, target_bits: float) -> NDArray[np.float64]:
    """Return the probability of each rank of each unit, `(n_units, most ranks)`, so that they spend `target_bits` on average."""
    exists = np.arange(format_ranks.bits.shape[1]) < format_ranks.n_ranks[:, None]
    bits = np.where(exists, format_ranks.bits, 0).astype(np.float64)
    most, steps = bits.max(axis=1).sum(), np.diff(bits, axis=1)

    def at(price: float) -> NDArray[np.float64]:
        exponent = np.where(exists, -price * bits, -np.inf)
        weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        shares: NDArray[np.float64] = weight / weight.sum(axis=1, keepdims=True)
        return shares

    if not most:
        return at(0.0)
    steep = 40.0 / steps[steps > 0].min()  # beyond it every unit is at its lowest or highest rank
    target = np.clip(target_bits, (at(steep) * bits).sum(), (at(-steep) * bits).sum())
    return at(brentq(lambda price: (at(price) * bits).sum() - target, -steep, steep, xtol=1e-15 * steep, maxiter=1_000))
