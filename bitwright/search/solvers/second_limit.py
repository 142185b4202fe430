"""Second limit beside a budget, kept by a price on what it counts (Everett, Operations Research 11, 1963).

The price is found by intersections (Handler & Zang, "A dual algorithm for the constrained shortest path problem", Networks 10, 1980): of two
solutions, one above the limit and one within it, the next price is that at which both are worth the same, until no solution is better there than
they are. What is returned is within the limit, and each price gives a lower bound to the loss of everything within it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_GROWTH, _GROWN = 8.0, 12  # prices that are tried until one is high enough
_INTERSECTIONS = 20
_ROUNDING = 1e-12  # of sums of floats


@dataclass(frozen=True)
class Priced(Generic[T]):
    """Solution `found` of least loss plus price × `taken` but for `gap`: its own `loss`, and the amount that it has `taken` of a second limit."""

    found: T
    loss: float
    taken: float
    gap: float


def solve_priced(at_price: Callable[[float], Priced[T] | None], at_most: float) -> Priced[T] | None:
    """Return the solution of least loss found that takes `at_most` of a second limit, with the proven gap to the least loss of all that do.

    `at_price` solves for a price on a unit of that limit. None is returned where it finds nothing, or nothing that takes as little.
    """
    over = at_price(0.0)
    if over is None or over.taken <= at_most:
        return over
    bound, price = over.loss - over.gap, (abs(over.loss) or 1.0) / (over.taken - at_most)
    within = at_price(price)
    for _ in range(_GROWN):
        if within is None or within.taken <= at_most:
            break
        bound, over = max(bound, _bound(within, price, at_most)), within
        price *= _GROWTH
        within = at_price(price)
    if within is None or within.taken > at_most:
        return None
    best, bound = within, max(bound, _bound(within, price, at_most))
    for _ in range(_INTERSECTIONS):
        price = (within.loss - over.loss) / (over.taken - within.taken)
        worth = over.loss + price * over.taken
        if not price > 0 or (found := at_price(price)) is None:
            break
        bound = max(bound, _bound(found, price, at_most))
        if found.taken <= at_most and found.loss < best.loss:
            best = found
        if found.loss + price * found.taken >= worth - _ROUNDING * abs(worth):
            break
        over, within = (over, found) if found.taken <= at_most else (found, within)
    return Priced(best.found, best.loss, best.taken, max(best.loss - bound, 0.0))


def _bound(solved: Priced[T], price: float, at_most: float) -> float:
    """Return a lower bound to the loss of everything that takes `at_most`."""
    return solved.loss + price * (solved.taken - at_most) - solved.gap
