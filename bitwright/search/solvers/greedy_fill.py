"""Take steps in a given order as long as they fit into the budget."""

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice


def choice_after(start: Choice, unit: NDArray[np.int64], option: NDArray[np.int64]) -> Choice:
    """Return the choice `(n_units,)` after steps `(n_steps,)` from `start` `(n_units,)`; the last step of a unit counts."""
    last = np.full(len(start), -1)
    np.maximum.at(last, unit, np.arange(len(unit)))
    choice = start.copy()
    choice[last >= 0] = option[last[last >= 0]]
    return choice


def affordable(unit: NDArray[np.int64], added_bits: NDArray[np.int64], room_bits: int) -> NDArray[np.int64]:
    """Return the indices of the steps `(n_steps,)` that fit, taken in their order. One that does not fit is skipped, with all later ones of its unit.

    A step that does not fit now will not fit later, so a round drops all such steps at once, and few rounds are needed.
    """
    taken = [np.zeros(0, dtype=np.int64)]
    waiting = np.arange(len(unit))
    barred = np.full(int(unit.max(initial=-1)) + 1, len(unit))  # (n_units,): the first step of each unit that does not fit
    while len(waiting):
        spent = np.cumsum(added_bits[waiting])
        n = int(np.searchsorted(spent, room_bits, side="right"))
        taken.append(waiting[:n])
        room_bits -= int(added_bits[waiting[:n]].sum())
        waiting = waiting[n:]
        too_large = waiting[added_bits[waiting] > room_bits]
        np.minimum.at(barred, unit[too_large], too_large)
        waiting = waiting[waiting < barred[unit[waiting]]]
    return np.concatenate(taken)
