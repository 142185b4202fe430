"""Linear relaxation of the multiple-choice knapsack, solved for every budget at once.

Only the options on the lower convex hull of a unit's (bits, loss) points take part in the relaxation, and it is solved by climbing from the
smallest options in the order of nats saved per bit (Sinha & Zoltners, "The multiple-choice knapsack problem", Operations Research 27, 1979;
Kellerer, Pferschy & Pisinger, "Knapsack Problems", 2004, section 11.2). The losses after each step, joined by straight lines, are the least
loss as a function of the bits spent: a lower bound everywhere and attained at the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice

_PART = 8_192  # units whose tables of eight options fit into the processor's cache


class _Round(NamedTuple):
    """Hull steps, at most one per unit, with the fields of `Ladder`, all `(n,)`."""

    unit: NDArray[np.int64]
    option: NDArray[np.int64]
    added_bits: NDArray[np.int64]
    saved: NDArray[np.float64]
    slope: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Envelope:
    """Lower envelope: the relaxed loss as a convex, falling, piecewise linear function of the bits spent beyond the smallest options.

    `bits`, `loss` and `slope`, each `(n_corners,)`: its corners, ascending in bits and ending in loss 0, and the loss per bit after each.
    """

    bits: NDArray[np.int64]
    loss: NDArray[np.float64]
    slope: NDArray[np.float64]

    def at(self, room: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Evaluate at numbers of bits `(n,)`, 0 or more: return the relaxed loss, and the loss of the last corner that fits, each `(n,)`."""
        corner = np.searchsorted(self.bits, room, side="right") - 1
        reached = self.loss[corner]
        return reached + self.slope[corner] * (room - self.bits[corner]), reached


@dataclass(frozen=True, eq=False)
class Ladder:
    """Hull steps of all units, the most efficient first.

    `start` `(n_units,)` is the smallest option of each unit. Step s moves `unit[s]` to `option[s]`, which adds `added_bits[s]` and saves
    `saved[s]` > 0; `slope[s]` < 0 is its loss per bit. All `(n_steps,)`. The steps of a unit come in their order.
    """

    start: Choice
    unit: NDArray[np.int64]
    option: NDArray[np.int64]
    added_bits: NDArray[np.int64]
    saved: NDArray[np.float64]
    slope: NDArray[np.float64]

    def envelope(self, first_unit: int) -> Envelope:
        """Return the relaxed loss of the units from `first_unit` on."""
        mine = self.unit >= first_unit
        bits = np.concatenate(([0], np.cumsum(self.added_bits[mine])))
        loss = np.concatenate((np.cumsum(self.saved[mine][::-1])[::-1], [0.0]))  # from the end: small losses keep their digits
        return Envelope(bits, loss, np.append(self.slope[mine], 0.0))


def climb(size_bits: NDArray[np.int64], loss: NDArray[np.float64], offered: NDArray[np.bool_]) -> Ladder:
    """Return the hull steps of units × options, all arguments `(n_units, n_options)` with at least one option offered per unit.

    Units are independent until their steps are sorted, so they are processed in parts that fit into the processor's cache.
    """
    parts = [slice(first, first + _PART) for first in range(0, max(len(loss), 1), _PART)]  # one empty part where there are no units
    starts, steps = [], []
    for part in parts:
        start, rounds = _climb_part(size_bits[part].T.copy(), loss[part].T.copy(), offered[part].T.copy())
        starts.append(start)
        steps += [_Round(unit + part.start, option, added, saved, slope) for unit, option, added, saved, slope in rounds]
    return _sorted(np.concatenate(starts), steps)


def _climb_part(size_bits: NDArray[np.int64], loss: NDArray[np.float64], offered: NDArray[np.bool_]) -> tuple[Choice, list[_Round]]:
    """Return the smallest option of each unit and its hull steps, all arguments `(n_options, n_units)`.

    Round r takes the r-th hull step of every unit at once: the steepest line from the unit's current option, and its far end where several options
    lie on it.
    """
    units = np.arange(loss.shape[1])
    start = _least(size_bits, loss, offered)
    stand, floor = start, np.full(len(units), -np.inf)
    rounds: list[_Round] = []
    while True:
        extra = size_bits - size_bits[stand, units]  # (n_options, n_units)
        fall = loss - loss[stand, units]
        slopes = np.where(offered & (extra > 0) & (fall < 0), fall / np.maximum(extra, 1), np.inf)
        steepest = slopes.min(axis=0)
        going = np.flatnonzero(steepest < 0)
        if not len(going):
            return start, rounds
        option = np.where(slopes == steepest, extra, -1).argmax(axis=0)[going]
        floor = np.maximum(floor, steepest)  # rounding must not let a later step overtake an earlier one
        rounds.append(_Round(going, option, extra[option, going], -fall[option, going], floor[going]))
        stand = stand.copy()
        stand[going] = option


def _least(size_bits: NDArray[np.int64], loss: NDArray[np.float64], offered: NDArray[np.bool_]) -> Choice:
    size = np.where(offered, size_bits, np.iinfo(np.int64).max)
    least: Choice = np.where(size == size.min(axis=0), loss, np.inf).argmin(axis=0)
    return least


def _sorted(start: Choice, steps: Sequence[_Round]) -> Ladder:
    if not steps:
        none = np.zeros(0, dtype=np.int64)
        return Ladder(start, none, none, none, none.astype(np.float64), none.astype(np.float64))
    slope = np.concatenate([part.slope for part in steps])
    order = np.argsort(slope, kind="stable")
    unit = np.concatenate([part.unit for part in steps])[order]
    option = np.concatenate([part.option for part in steps])[order]
    added_bits = np.concatenate([part.added_bits for part in steps])[order]
    saved = np.concatenate([part.saved for part in steps])[order]
    return Ladder(start, unit, option, added_bits, saved, slope[order])
