"""Options made of several decisions: every combination that no other of at most as many bits beats, solved as one multiple-choice knapsack.

A width and the formats of the matrices that it narrows cannot be priced apart: bits and losses of a format depend on the width. But the best plan
uses, of each part, only nondominated combinations (Nemhauser & Ullmann, "Discrete dynamic programming and capital allocation", Management Science 15,
1969), and these are few. Each group of decisions becomes a unit whose options they are, and the exact knapsack of `knapsack` chooses among them.
Where a group has too many, those between the corners of its convex hull are thinned out, and the bound is that of the relaxation, which needs the
corners alone: the gap that is reported holds for all combinations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.instance import extra_bits
from bitwright.search.solvers.knapsack import solve
from bitwright.search.solvers.relaxation import relax
from bitwright.spaces import Absence, Space, Unit

_MOST = 400  # options of a group that are kept


@dataclass(frozen=True, eq=False)
class Options:
    """Options of a group of decisions: `bits` and `loss` in nats/token `(n,)`, and `picks` `(n, n_decisions)`, the option of each decision."""

    bits: NDArray[np.int64]
    loss: NDArray[np.float64]
    picks: NDArray[np.int64]

    def only(self, index: NDArray[np.int64]) -> "Options":
        """Return the options at `index` `(n_left,)`."""
        return Options(self.bits[index], self.loss[index], self.picks[index])

    def plus(self, *, bits: int, loss: float) -> "Options":
        """Return the options with more bits and loss, all the same."""
        return Options(self.bits + bits, self.loss + loss, self.picks)


@dataclass(frozen=True, eq=False)
class CompositeSolution:
    """Picks `(n_decisions,)` of each group, in order, their `loss` in nats/token and `bits`, and the proven `gap` to the least loss."""

    picks: tuple[NDArray[np.int64], ...]
    loss: float
    bits: int
    gap: float


def one_decision(bits: NDArray[np.int64], loss: NDArray[np.float64], index: NDArray[np.int64]) -> Options:
    """Return the nondominated options of one decision, `bits`, `loss` and their `index` `(n,)`."""
    return nondominated_of(Options(bits, loss, index[:, None]))


def nondominated_of(options: Options) -> Options:
    """Return the options that no other of at most as many bits has at most the loss of, ascending in bits."""
    order = np.lexsort((options.loss, options.bits))
    loss = options.loss[order]
    falls = np.append(True, loss[1:] < np.minimum.accumulate(loss)[:-1])
    return options.only(order[falls])


def combined(*parts: Options) -> Options:
    """Return the nondominated combinations of one option of each part, with the picks of all."""
    return reduce(_both, parts)


def either(*kinds: Options) -> Options:
    """Return the nondominated options among those of several kinds, whose picks mean the same."""
    bits, loss = np.concatenate([kind.bits for kind in kinds]), np.concatenate([kind.loss for kind in kinds])
    return nondominated_of(Options(bits, loss, np.concatenate([kind.picks for kind in kinds])))


def solve_composite(groups: Sequence[Options], budget_bits: int) -> CompositeSolution:
    """Return the choice of one option of each group of least loss, with at most `budget_bits` in all.

    Raises:
        BudgetError: even the smallest options have more.
    """
    thin = [_thinned(group) for group in groups]
    space, table = _instance(thin)
    found = solve(space, table, budget_bits)
    relaxation = relax(extra_bits(space), table, space.offered, room_bits=budget_bits - int(space.total_bits(space.smallest())))
    is_whole = all(len(few.bits) == len(all_.bits) for few, all_ in zip(thin, groups, strict=True))
    picks = tuple(group.picks[i] for group, i in zip(thin, found.choice, strict=True))
    return CompositeSolution(picks, found.loss, found.size_bits, found.gap if is_whole else relaxation.gap(found.choice))


def _both(first: Options, second: Options) -> Options:
    bits, loss = (first.bits[:, None] + second.bits).ravel(), (first.loss[:, None] + second.loss).ravel()
    left, right = np.divmod(np.arange(len(bits)), len(second.bits))
    front = nondominated_of(Options(bits, loss, np.stack([left, right], axis=1)))
    return Options(front.bits, front.loss, np.concatenate([first.picks[front.picks[:, 0]], second.picks[front.picks[:, 1]]], axis=1))


def _thinned(options: Options) -> Options:
    """Return nondominated options with those between the corners of their hull thinned out to about `_MOST`."""
    n = len(options.bits)
    if n <= _MOST:
        return options
    return options.only(np.unique(np.append(_corners(options), np.linspace(0, n - 1, _MOST).astype(np.int64))))


def _corners(options: Options) -> NDArray[np.int64]:
    """Return the indices of the corners of the lower convex hull of options that are ascending in bits (Andrew's monotone chain)."""
    bits, loss, found = options.bits.tolist(), options.loss.tolist(), list[int]()
    for i in range(len(bits)):
        while len(found) > 1 and _is_above(found[-2], found[-1], i, bits, loss):
            found.pop()
        found.append(i)
    return np.array(found, dtype=np.int64)


def _is_above(a: int, b: int, c: int, bits: Sequence[int], loss: Sequence[float]) -> bool:
    """Return whether b is on or above the line from a to c."""
    return (loss[b] - loss[a]) * (bits[c] - bits[a]) >= (loss[c] - loss[a]) * (bits[b] - bits[a])


def _instance(groups: Sequence[Options]) -> tuple[Space, NDArray[np.float64]]:
    """Return the space of groups × options, and the table of their losses, both padded."""
    shape = len(groups), max(len(group.bits) for group in groups)
    bits, loss, offered = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    for row, group in enumerate(groups):
        n = len(group.bits)
        bits[row, :n], loss[row, :n], offered[row, :n] = group.bits, group.loss, True
    units = tuple(Unit(f"group {i}", -1, "group", ()) for i in range(shape[0]))
    return Space(units, tuple(Absence(f"option {i}") for i in range(shape[1])), bits, offered, 0, 1), loss
