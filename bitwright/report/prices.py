"""What it would cost to store a tensor in fewer bytes, and what it would bring to give it more.

The price of a step from one format to another is the change of the expected divergence for each million bytes (nats/token per MB). A choice is
optimal for a sum of divergences under a bound on bytes when, up to the indivisible rest of the budget, no tensor shrinks for less than another
one's growth brings (Lagrange multipliers for discrete choices: Everett, Operations Research 11(3), 1963). So the two prices of a tensor are
the reason why it got what it got.
"""

from dataclasses import dataclass

import numpy as np

from bitwright.report.summary import RunSummary
from bitwright.spaces import Format


@dataclass(frozen=True)
class Step:
    """A move of one unit to `form`; `price` in nats/token per MB is lost on the way down and won on the way up."""

    form: Format
    price: float


@dataclass(frozen=True)
class NoStep:
    """The unit has no smaller format, or no larger one that is expected to be better."""


def shrink(summary: RunSummary, unit: int) -> Step | NoStep:
    """The smaller format that loses least for each byte saved: the step that a tighter budget would take first."""
    return _step(summary, unit, direction=-1)


def grow(summary: RunSummary, unit: int) -> Step | NoStep:
    """The larger format that wins most for each byte spent: the step that a looser budget would take first."""
    return _step(summary, unit, direction=1)


def _step(summary: RunSummary, unit: int, *, direction: int) -> Step | NoStep:
    now = summary.chosen.choice[unit]
    size_bytes = summary.space.size_bits[unit] / 8  # (n_formats,)
    more_bytes = size_bytes - size_bytes[now]
    less_nats = summary.table[unit, now] - summary.table[unit]
    there = np.flatnonzero(summary.space.offered[unit] & np.isfinite(less_nats) & (direction * more_bytes > 0))
    if not there.size:
        return NoStep()
    price = 1e6 * less_nats[there] / more_bytes[there]  # nats/token per MB, positive both ways where more bytes are better
    best = int(np.argmax(direction * price))
    worth_it = direction < 0 or price[best] > 0
    return Step(summary.space.formats[there[best]], float(price[best])) if worth_it else NoStep()
