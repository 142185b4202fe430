"""Pareto dynamic programme over units, in integers.

The lists of (bits, loss) states of Nemhauser & Ullmann ("Discrete dynamic programming and capital allocation", Management Science 15, 1969)
hold, after k units, every nondominated choice for these. Here a state must also be able to lead to the best choice: its loss
plus the relaxed loss of the remaining units, with the bits it has left, must not exceed the best choice known (Kellerer, Pferschy & Pisinger,
"Knapsack Problems", 2004, section 11.5, where one multiplier serves all states; the `Envelope` gives each state its own, so that a unit which
holds a fifth of the model does no harm). The best choice known improves on the way: every state is completed by rounding down, so a few dozen
states are enough where units differ. Units are processed from the largest range of bits to the smallest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.relaxed_front import Envelope, climb
from bitwright.spaces import Choice

#: Sums of losses given to `least_loss` must stay below 2 to this power, so that a float64 holds them exactly.
LOSS_BITS = 51
_ROUNDING = 8.0  # generous bound on the error of a relaxed loss below 2**52


@dataclass(frozen=True, eq=False)
class Outcome:
    """Best `choice` `(n_units,)` found, a `lower_bound` on every loss, and the number of states examined."""

    choice: Choice
    loss: int
    lower_bound: float
    n_states: int


@dataclass(frozen=True, eq=False)
class _States:
    """Partial choices: `bits`, `loss` `(n,)` ascending in bits, `options` `(n, n_units)`, zero for units not yet processed."""

    bits: NDArray[np.int64]
    loss: NDArray[np.int64]
    options: NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class _Offspring:
    """States after one more unit, all `(n,)`: index of the parent state and the option added.

    `bound` is a lower bound on the loss of every completion, `reached` the loss of one completion.
    """

    parent: NDArray[np.int64]
    option: NDArray[np.int64]
    bits: NDArray[np.int64]
    loss: NDArray[np.int64]
    bound: NDArray[np.float64]
    reached: NDArray[np.float64]

    def only(self, index: NDArray[np.int64]) -> "_Offspring":
        return _Offspring(self.parent[index], self.option[index], self.bits[index], self.loss[index], self.bound[index], self.reached[index])


def least_loss(extra_bits: NDArray[np.int64], loss: NDArray[np.int64], offered: NDArray[np.bool_], *, room_bits: int, n_kept: int) -> Outcome:
    """Return the choice of least loss whose extra bits sum to at most `room_bits`; of equals the one of fewest bits, then lexicographically first.

    All tables `(n_units, n_formats)`, with a smallest offered value of zero in each row. When more than `n_kept` states are left after a unit,
    those with the least bounds stay, and the least bound among the dropped ones goes into `lower_bound`: optimality is proven down to it.
    """
    order = np.argsort(-np.where(offered, extra_bits, 0).max(axis=1), kind="stable")
    ladder = climb(extra_bits[order], loss[order].astype(np.float64), offered[order])
    none = np.zeros(1, dtype=np.int64)
    states = _States(none, none, np.zeros((1, len(order)), dtype=np.uint16))
    dropped, n_states = np.inf, 0
    for turn, unit in enumerate(order.tolist()):
        options = np.flatnonzero(offered[unit])
        grown = _grow(states, options, extra_bits[unit, options], loss=loss[unit, options], rest=ladder.envelope(turn + 1), room_bits=room_bits)
        grown, least_dropped = _thin(grown.only(_front(states, grown, unit)), n_kept)
        dropped = min(dropped, least_dropped)
        states = _States(grown.bits, grown.loss, _rows(states, grown, unit))
        n_states += len(states.bits)
    best = int(states.loss[-1])
    return Outcome(states.options[-1].astype(np.int64), best, min(dropped, float(best)), n_states)


def _grow(
    states: _States, options: NDArray[np.int64], bits: NDArray[np.int64], *, loss: NDArray[np.int64], rest: Envelope, room_bits: int
) -> _Offspring:
    """Extend every state by every option of a unit, `bits` and `loss` `(n_options,)`, that fits and whose bound is not above the best completion."""
    total_bits = (states.bits[:, None] + bits).ravel()  # (n_states * n_options,)
    fits = np.flatnonzero(total_bits <= room_bits)
    total_bits, total_loss = total_bits[fits], (states.loss[:, None] + loss).ravel()[fits]
    relaxed, corner = rest.at(room_bits - total_bits)
    bound, reached = total_loss + relaxed - _ROUNDING, total_loss + corner
    parent, option = np.divmod(fits, len(options))
    return _Offspring(parent, options[option], total_bits, total_loss, bound, reached).only(np.flatnonzero(bound <= reached.min()))


def _front(states: _States, grown: _Offspring, unit: int) -> NDArray[np.int64]:
    """Return the indices of the offspring nondominated in bits and loss, ascending in bits; of equals the one whose options come first."""
    order = np.lexsort((grown.loss, grown.bits))
    same = (np.diff(grown.bits[order]) == 0) & (np.diff(grown.loss[order]) == 0)
    if same.any():
        rank = np.zeros(len(order), dtype=np.int64)
        tied = order[np.append(same, False) | np.append(False, same)]
        words = _rows(states, grown.only(tied), unit).astype(">u2")  # big-endian: bytes sort as numbers do
        rank[tied] = np.unique(words.view(f"S{2 * words.shape[1]}").ravel(), return_inverse=True)[1]
        order = np.lexsort((rank, grown.loss, grown.bits))
    loss = grown.loss[order]
    falls = np.append(True, loss[1:] < np.minimum.accumulate(loss)[:-1])
    front: NDArray[np.int64] = order[falls]
    return front


def _rows(states: _States, grown: _Offspring, unit: int) -> NDArray[np.uint16]:
    rows = states.options[grown.parent]
    rows[:, unit] = grown.option
    return rows


def _thin(grown: _Offspring, n_kept: int) -> tuple[_Offspring, float]:
    """Return the `n_kept` offspring with the least bounds plus the one with the best completion, and the least bound of all others."""
    if len(grown.bits) <= n_kept:
        return grown, np.inf
    rank = np.argsort(grown.bound, kind="stable")
    kept = np.union1d(rank[:n_kept], grown.reached.argmin())
    return grown.only(kept), float(grown.bound[rank[n_kept]])
