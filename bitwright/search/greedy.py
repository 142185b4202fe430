"""Greedy allocation by marginals: units are promoted from the smallest file up, or demoted from the largest down, a format at a time.

Each step goes to the unit whose *next* format saves the most loss per bit added, or costs the least per bit saved: (loss[next] - loss[now]) /
(bits[next] - bits[now]). On convex tables that is best at every size it passes through (Fox, "Discrete optimization via marginal analysis",
Management Science 13, 1966). QVLA (arXiv 2602.03782) demotes channels so; its code divides the *whole* loss of the lower format by the bits saved,
which charges again for what the unit has lost already, and averages over channels of unequal size: here it is the marginal, over bits.

What a heap of next steps would pop one by one is what a sort finds by the dearest step so far of each unit, so no unit is looked at alone.
Formats that are larger and no better than another of the same unit are no steps. Unlike in `ladder`, no other format is passed over: where a table is
not convex, a step is judged without what lies behind it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.search.instance import checked_table, extra_bits, room_bits
from bitwright.search.relaxation import relax
from bitwright.search.solution import Solution, proven
from bitwright.search.spending import affordable, stand_after
from bitwright.spaces import Choice, Space


def promote(space: Space, table: NDArray[np.float64], budget_bits: int) -> Solution:
    """From the smallest file up, as long as a step fits in `budget_bits`; a unit whose next step does not fit stays where it is.

    `table` `(n_units, n_formats)` is in nats/token. The gap is measured against the bound of `relaxation`; `n_nodes` counts the steps.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space or is not finite where a format is offered.
    """
    loss, room = checked_table(space, table), room_bits(space, budget_bits)
    stairs = _stairs(extra_bits(space), loss, space.offered)
    slope = np.where(stairs.is_step, -stairs.saved / np.maximum(stairs.bits, 1), -np.inf)
    order = _popped(np.maximum.accumulate(slope, axis=1), stairs.is_step)
    unit = order // stairs.bits.shape[1]
    paid = affordable(unit, stairs.bits.ravel()[order], room)
    return _solution(space, loss, stand_after(stairs.bottom, unit[paid], stairs.upper.ravel()[order[paid]]), room=room, n_steps=len(order))


def demote(space: Space, table: NDArray[np.float64], budget_bits: int) -> Solution:
    """From the best file down, until it fits in `budget_bits`. Arguments, answer and errors as of `promote`."""
    loss, room = checked_table(space, table), room_bits(space, budget_bits)
    stairs = _stairs(extra_bits(space), loss, space.offered)
    cost = np.where(stairs.is_step, stairs.saved / np.maximum(stairs.bits, 1), -np.inf)[:, ::-1]  # a unit's steps from the top
    order = _popped(np.maximum.accumulate(cost, axis=1), stairs.is_step[:, ::-1])
    unit = order // stairs.bits.shape[1]
    too_many = int(stairs.bits[stairs.is_step].sum()) - room
    n_steps = int(np.searchsorted(np.cumsum(stairs.bits[:, ::-1].ravel()[order]), too_many)) + 1 if too_many > 0 else 0
    lower = stairs.lower[:, ::-1].ravel()[order[:n_steps]]
    return _solution(space, loss, stand_after(stairs.top, unit[:n_steps], lower), room=room, n_steps=len(order))


@dataclass(frozen=True, eq=False)
class _Stairs:
    """The steps of all units: column k of `is_step` `(n_units, n_formats)` says that a unit's k-th smallest format is better than all smaller.

    Such a step goes from `lower` to `upper`, adds `bits` and saves `saved`, each `(n_units, n_formats)`, from `bottom` to `top` `(n_units,)`.
    """

    is_step: NDArray[np.bool_]
    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    bits: NDArray[np.int64]
    saved: NDArray[np.float64]
    bottom: Choice
    top: Choice


def _stairs(extra: NDArray[np.int64], loss: NDArray[np.float64], offered: NDArray[np.bool_]) -> _Stairs:
    loss = np.where(offered, loss, np.inf)
    upper = np.lexsort((loss, np.where(offered, extra, np.iinfo(np.int64).max)), axis=1)
    sorted_loss, sorted_bits = np.take_along_axis(loss, upper, axis=1), np.take_along_axis(extra, upper, axis=1)
    below = np.minimum.accumulate(sorted_loss, axis=1)[:, :-1]  # (n_units, n_formats - 1)
    is_step = np.column_stack((np.zeros(len(loss), dtype=np.bool_), sorted_loss[:, 1:] < below))
    position = np.maximum.accumulate(np.where(is_step, np.arange(loss.shape[1]), 0), axis=1)  # of the best format so far
    lower_position = np.column_stack((position[:, :1], position[:, :-1]))
    lower = np.take_along_axis(upper, lower_position, axis=1)
    bits = np.where(is_step, sorted_bits - np.take_along_axis(sorted_bits, lower_position, axis=1), 0)
    saved = np.zeros_like(sorted_loss)
    np.subtract(np.take_along_axis(sorted_loss, lower_position, axis=1), sorted_loss, out=saved, where=is_step)
    top = np.take_along_axis(upper, position[:, -1:], axis=1)[:, 0]
    return _Stairs(is_step, lower, upper, bits, saved, upper[:, 0], top)


def _popped(dearest: NDArray[np.float64], is_step: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps, as indices into the flat table, in the order in which a heap pops them."""
    steps = np.flatnonzero(is_step)
    order: NDArray[np.int64] = steps[np.argsort(dearest.ravel()[steps], kind="stable")]
    return order


def _solution(space: Space, loss: NDArray[np.float64], choice: Choice, *, room: int, n_steps: int) -> Solution:
    gap = relax(extra_bits(space), loss, space.offered, room_bits=room).gap(choice)
    return proven(space, loss, choice, below=gap, n_nodes=n_steps)
