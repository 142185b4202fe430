"""Proportional allocation: bits in proportion to shares, between each unit's smallest and largest format, in a file that meets its budget.

Edge-LLM (DAC 2024) removes bits from each layer in proportion to (1 - s), s its sensitivity scaled to [0, 1], until the average reaches a target
(`proportional_reduction` with `inverse_importance`). UniQL leaves each layer a softmax of its scores times the target (`proportional_allocation` with
`softmax_shares`). Both miss their budget: Edge-LLM's ratios may exceed one, and UniQL clamps its own at 0.85. Here the bits that the limits cut off
are redistributed among the other units, by solving for one common scale.

Formats have discrete sizes. Each unit is rounded down to one, and the bits left go to the units in the order of their remainders (Hamilton's method
of apportionment); a unit whose step does not fit is skipped.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.search.solvers.greedy_fill import affordable
from bitwright.search.solvers.instance import extra_bits, room_bits
from bitwright.search.solvers.scores import checked_scores, weights_of
from bitwright.spaces import Choice, Space

_LEAST_SHARE = 1e-6  # of the largest share: the value of a share of zero, so that its unit gets bits when all others are at their limits
_SCALES = 200.0  # powers of two, up and down, that bracket the scale
_HALVINGS = 60  # the scale is then exact to its last digits
_ROUNDING = 1e-12  # relative: a unit's bits stay that far below its scaled share, so that no sum exceeds the budget


def proportional_allocation(space: Space, shares: NDArray[np.float64], budget_bits: int) -> Choice:
    """Return the choice `(n_units,)` whose bits per weight are nearly proportional to `shares` `(n_units,)`, within `budget_bits`.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the shares are negative or not one finite number per unit.
    """
    smallest, largest = _limits(space)
    rate, room = _rate(space, shares), room_bits(space, budget_bits)
    return _rounded(space, _largest_scale(lambda scale: np.clip(scale * rate, smallest, largest) - smallest, room), room)


def proportional_reduction(space: Space, shares: NDArray[np.float64], budget_bits: int) -> Choice:
    """Return the choice `(n_units,)` that removes bits per weight from every unit's largest format in proportion to `shares`.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the shares are negative or not one finite number per unit.
    """
    smallest, largest = _limits(space)
    rate, room = _rate(space, shares), room_bits(space, budget_bits)
    return _rounded(space, _largest_scale(lambda scale: np.maximum(largest - rate / scale, smallest) - smallest, room), room)


def inverse_importance(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map `scores` `(n_units,)` linearly to shares of one for the least and zero for the largest; all one where scores are equal."""
    span = scores.max() - scores.min()
    return (scores.max() - scores) / span if span > 0 else np.ones_like(scores)


def softmax_shares(scores: NDArray[np.float64], *, temperature: float) -> NDArray[np.float64]:
    """Softmax of `scores` `(n_units,)` at a temperature: shares that sum to one, in proportion to exp(score / temperature)."""
    powers = np.exp((scores - scores.max()) / temperature)
    return np.asarray(powers / powers.sum())


def _rate(space: Space, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits of each unit at a scale of one `(n_units,)`."""
    if (checked_scores(space, shares) < 0).any():
        raise UserError(f"A share must not be negative, and the least is {shares.min()}: shift the scores, or take `softmax_shares` of them.")
    most = shares.max()
    relative = np.maximum(shares / most, _LEAST_SHARE) if most > 0 else np.ones_like(shares)
    return relative * np.maximum(weights_of(space), 1)


def _limits(space: Space) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bits of each unit's smallest and largest format `(n_units,)`."""
    units = np.arange(len(space.units))
    return space.size_bits[units, space.smallest()], space.size_bits[units, space.largest()]


def _largest_scale(bits: Callable[[float], NDArray[np.float64]], room: int) -> NDArray[np.float64]:
    """Return `bits` `(n_units,)` at the largest scale at which their sum, which grows with it, is at most `room`."""
    low, high = -_SCALES, _SCALES
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if bits(2.0**middle).sum() <= room else (low, middle)
    return bits(2.0**low)


def _rounded(space: Space, wanted_bits: NDArray[np.float64], room: int) -> Choice:
    """Round the bits wanted beyond each unit's smallest format `(n_units,)` to formats, within `room`."""
    units, extra = np.arange(len(space.units)), extra_bits(space)
    wanted = wanted_bits * (1 - _ROUNDING)
    choice: Choice = np.where(space.offered & (extra <= wanted[:, None]), extra, -1).argmax(axis=1)
    here = extra[units, choice]
    larger = np.where(space.offered & (extra > here[:, None]), extra, np.iinfo(np.int64).max)
    up = larger.argmin(axis=1)
    step = np.where(larger[units, up] < np.iinfo(np.int64).max, extra[units, up] - here, 0)
    remainder = np.divide(wanted - here, step, out=np.zeros(len(units)), where=step > 0)
    order = np.argsort(-remainder, kind="stable")
    order = order[remainder[order] > 0]
    paid = order[affordable(order, step[order], room - int(here.sum()))]
    choice[paid] = up[paid]
    return choice
