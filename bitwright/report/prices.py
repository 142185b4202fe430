"""Marginal prices of a tensor's format: the divergence added by the next smaller one, and removed by the next larger one.

The price of a step from one format to another is the change of the predicted divergence per million bytes (nats/token per MB). A choice minimises
a sum of divergences under a bound on bytes when, up to the indivisible rest of the budget, no price to shrink is below another tensor's price to
grow (Lagrange multipliers for discrete choices: Everett, Operations Research 11(3), 1963). So the two prices explain a tensor's format.
"""

from dataclasses import dataclass

import numpy as np

from bitwright.report.summary import RunSummary
from bitwright.spaces import Format


@dataclass(frozen=True)
class Step:
    """Step of one unit to `form`; `price` in nats/token per MB is added on the way down and removed on the way up."""

    form: Format
    price: float


def shrink(summary: RunSummary, unit: int) -> Step | None:
    """Return the smaller format that loses least per byte saved: the step that a tighter budget would take first; None if there is no smaller one."""
    return _step(summary, unit, direction=-1)


def grow(summary: RunSummary, unit: int) -> Step | None:
    """Return the larger format that gains most per byte spent: the step that a looser budget would take first; None if none is predicted to gain."""
    return _step(summary, unit, direction=1)


def _step(summary: RunSummary, unit: int, *, direction: int) -> Step | None:
    current = summary.chosen.choice[unit]
    size_bytes = summary.space.size_bits[unit] / 8  # (n_formats,)
    more_bytes = size_bytes - size_bytes[current]
    less_nats = summary.table[unit, current] - summary.table[unit]
    steps = np.flatnonzero(summary.space.offered[unit] & np.isfinite(less_nats) & (direction * more_bytes > 0))
    if not steps.size:
        return None
    price = 1e6 * less_nats[steps] / more_bytes[steps]  # nats/token per MB, positive both ways where more bytes are better
    best = int(np.argmax(direction * price))
    worth_it = direction < 0 or price[best] > 0
    return Step(summary.space.formats[steps[best]], float(price[best])) if worth_it else None
