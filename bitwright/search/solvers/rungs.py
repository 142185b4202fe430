"""Choices as heights: the offered formats of each unit in ascending size are rungs 0, 1, 2, ..., so that "a level up" means something.

Of formats of equal size the one that comes first in the space is the lower.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from bitwright.search.solvers.instance import extra_bits
from bitwright.spaces import Choices, Space

#: a rung of each unit, `(n_units,)` or `(n, n_units)`
Heights = NDArray[np.int64]

_NEVER = np.iinfo(np.int64).max // 4  # bits of a rung that does not exist: no sum of two overflows


class Rungs:
    """The rungs of all units.

    `n_rungs` `(n_units,)` counts them, `bits` `(n_units, most rungs)` has what each costs beyond the unit's lowest, or more than any budget where a
    unit has no such rung.
    """

    def __init__(self, space: Space) -> None:
        bits = np.where(space.offered, extra_bits(space), _NEVER)
        self.n_rungs: NDArray[np.int64] = space.offered.sum(axis=1)
        self._option = np.argsort(bits, axis=1, kind="stable")[:, : self.n_rungs.max()]
        self._height = np.argsort(np.argsort(bits, axis=1, kind="stable"), axis=1, kind="stable")
        self._unit = np.arange(len(bits))
        self.bits: NDArray[np.int64] = np.take_along_axis(bits, self._option, axis=1)

    @property
    def top(self) -> Heights:
        """The highest rung of every unit `(n_units,)`."""
        return self.n_rungs - 1

    def of(self, choices: Choices) -> Heights:
        """The heights of choices `(..., n_units)`."""
        return self._height[self._unit, choices]

    def choices(self, heights: Heights) -> Choices:
        """The choices at heights `(..., n_units)`."""
        return self._option[self._unit, heights]

    def spent(self, heights: Heights) -> NDArray[np.int64]:
        """Bits beyond the smallest file for heights `(..., n_units)`: shape `(...)`."""
        spent: NDArray[np.int64] = self.bits[self._unit, heights].sum(axis=-1)
        return spent

    def step_up(self, heights: Heights) -> NDArray[np.int64]:
        """Bits that each unit costs more one rung above `heights` `(n_units,)`, more than any budget at the top."""
        above = self.bits[self._unit, np.minimum(heights + 1, self.top)]
        return np.where(heights < self.top, above - self.bits[self._unit, heights], _NEVER)


def lowered(rungs: Rungs, heights: Heights, room_bits: int, rng: np.random.Generator) -> Heights:
    """`heights` `(n_units,)` with units drawn at random lowered by a rung, again and again, until all spend at most `room_bits`."""
    heights, spent = heights.copy(), int(rungs.spent(heights))
    while spent > room_bits:
        unit = rng.choice(np.flatnonzero(heights > 0))
        heights[unit] -= 1
        spent -= int(rungs.bits[unit, heights[unit] + 1] - rungs.bits[unit, heights[unit]])
    return heights


def raised(rungs: Rungs, heights: Heights, room_bits: int, rng: np.random.Generator) -> Heights:
    """`heights` `(n_units,)` with units drawn at random raised by a rung as long as `room_bits` has room for any."""
    heights, left = heights.copy(), room_bits - int(rungs.spent(heights))
    while len(fits := np.flatnonzero(rungs.step_up(heights) <= left)):
        unit = rng.choice(fits)
        left -= int(rungs.step_up(heights)[unit])
        heights[unit] += 1
    return heights


def drawn(rungs: Rungs, target_bits: float, n: int, rng: np.random.Generator) -> Heights:
    """`n` random heights `(n, n_units)` that spend `target_bits` on average, those that spend the same all equally likely.

    A Boltzmann sampler (Duchon, Flajolet, Louchard & Schaeffer, Combinatorics, Probability and Computing 13, 2004): each unit is drawn on its own
    with probabilities proportional to exp(-λ bits), and λ is where the mean is right.
    """
    cumulative = np.cumsum(_probabilities(rungs, target_bits), axis=1)
    cumulative[np.arange(cumulative.shape[1]) >= rungs.top[:, None]] = 1.0  # whatever rounding left of it
    heights: Heights = (rng.random((n, len(cumulative), 1)) >= cumulative).sum(axis=2)
    return heights


def _probabilities(rungs: Rungs, target_bits: float) -> NDArray[np.float64]:
    """Of each rung of each unit, `(n_units, most rungs)`, so that they spend `target_bits` on average."""
    exists = np.arange(rungs.bits.shape[1]) < rungs.n_rungs[:, None]
    bits = np.where(exists, rungs.bits, 0).astype(np.float64)
    most, steps = bits.max(axis=1).sum(), np.diff(bits, axis=1)

    def at(price: float) -> NDArray[np.float64]:
        exponent = np.where(exists, -price * bits, -np.inf)
        weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        shares: NDArray[np.float64] = weight / weight.sum(axis=1, keepdims=True)
        return shares

    if not most:
        return at(0.0)
    steep = 40.0 / steps[steps > 0].min()  # beyond it no unit leaves its end
    target = np.clip(target_bits, (at(steep) * bits).sum(), (at(-steep) * bits).sum())
    return at(brentq(lambda price: (at(price) * bits).sum() - target, -steep, steep, xtol=1e-15 * steep, maxiter=1_000))
