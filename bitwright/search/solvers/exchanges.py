"""Improve a rounded-down relaxation by exchanges: change the format of one unit, or of two at once, within the budget and with less loss.

The relaxation leaves less than one step of the budget unspent. A step of another unit, or a step down for a longer step up elsewhere, uses it better;
such formats need not lie on a unit's hull. An option whose reduced cost exceeds the gap of the incumbent is in no better choice (Pisinger, "A minimal
algorithm for the multiple-choice knapsack problem", European Journal of Operational Research 83, 1995), so every exchange leaves fewer options.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.relaxation import Relaxation
from bitwright.spaces import Choice

_WORTHWHILE = 1e-3  # share of the gap that an exchange must close
_AT_ONCE = 100_000  # moves compared with each other, those of least reduced cost: among so many, some pair fills the room


def exchanged(relaxation: Relaxation) -> tuple[Choice, int]:
    """Return a choice `(n_units,)` within the room, no worse than the relaxation rounded down, and the number of moves compared."""
    choice, n_moves = relaxation.rounded_down.copy(), 0
    gap = relaxation.gap(choice)
    pairs = _within(relaxation, gap)
    while len(pairs):
        unit, option = np.divmod(pairs, relaxation.reduced.shape[1])
        better = _best_exchange(relaxation, choice, unit, option=option, at_least=_WORTHWHILE * gap)
        n_moves += len(pairs)
        if not len(better):
            break
        choice[unit[better]] = option[better]
        gap = relaxation.gap(choice)
        pairs = pairs[relaxation.reduced.ravel()[pairs] < gap]
    return choice, n_moves


def _within(relaxation: Relaxation, gap: float) -> NDArray[np.int64]:
    """Return pairs `(n,)`, as unit * n_formats + format, with reduced costs below a gap: at most the least `_AT_ONCE`, and the current pairs."""
    n_units, n_formats = relaxation.reduced.shape
    reduced, home = relaxation.reduced.ravel(), np.arange(n_units) * n_formats + relaxation.rounded_down
    cheap = reduced < gap
    cheap[home] = False
    away = np.flatnonzero(cheap)
    if len(away) > _AT_ONCE:
        away = away[np.argpartition(reduced[away], _AT_ONCE)[:_AT_ONCE]]
    return np.concatenate([home[np.unique(away // n_formats)], away])


def _best_exchange(
    relaxation: Relaxation, choice: Choice, unit: NDArray[np.int64], *, option: NDArray[np.int64], at_least: float
) -> NDArray[np.int64]:
    """Return the one or two moves of `unit` and `option` `(n_moves,)` that lower the loss most within the room; none if by less than `at_least`.

    Each move finds its partner among all that fit beside it: in ascending order of bits, the last of the running minima of loss.
    """
    here = choice[unit]
    bits = np.append(relaxation.extra_bits[unit, option] - relaxation.extra_bits[unit, here], 0)
    loss = np.append(relaxation.loss[unit, option] - relaxation.loss[unit, here], 0.0)  # the last is the empty move: the partner of a single move
    order = np.argsort(bits, kind="stable")
    least = np.minimum.accumulate(loss[order])
    holder = order[np.maximum.accumulate(np.where(loss[order] == least, np.arange(len(order)), 0))]
    n_fitting = np.searchsorted(bits[order], relaxation.unspent_bits(choice) - bits, side="right")
    partner = holder[n_fitting - 1]  # any move where none fits: ruled out below
    owner = np.append(unit, -1)
    change = np.where((n_fitting > 0) & (owner != owner[partner]), loss + loss[partner], np.inf)
    first = int(change.argmin())
    if change[first] > -at_least:
        return np.zeros(0, dtype=np.int64)
    both = np.array([first, partner[first]])
    return both[both < len(unit)]
