"""Greedy allocation by marginal gain: promote units from the smallest file up, or demote them from the largest down, one format at a time.

Each step goes to the unit whose *next* format saves the most loss per bit added, or costs the least per bit saved: (loss[next] - loss[now]) /
(bits[next] - bits[now]). On convex tables that is optimal at every size it passes through (Fox, "Discrete optimization via marginal analysis",
Management Science 13, 1966). QVLA (arXiv 2602.03782) demotes channels this way; its code divides the *whole* loss of the lower format by the bits
saved, which charges again for loss already taken, and averages over channels of unequal size: here the ratio is marginal, over bits.

Instead of a heap of next steps, all steps are sorted by the dearest step so far of their unit, which gives the same order in whole arrays. Formats
that are larger and no better than another of the same unit are no steps. Unlike in `relaxed_front`, no other format is skipped: where a table is not
convex, a step is judged without looking further ahead.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.greedy_fill import affordable, choice_after
from bitwright.search.solvers.instance import checked_table, extra_bits, room_bits
from bitwright.search.solvers.relaxation import relax
from bitwright.search.solvers.solution import Solution, proven
from bitwright.spaces import Choice, Space

_PART = 8_192  # units whose tables of eight formats fit into the processor's cache


def promote(space: Space, table: NDArray[np.float64], budget_bits: int) -> Solution:
    """Promote from the smallest file up as long as a step fits in `budget_bits`; a unit whose next step does not fit keeps its format.

    `table` `(n_units, n_formats)` is in nats/token. The gap is measured against the bound of `relaxation`; `n_nodes` counts the steps.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space or is not finite where a format is offered.
    """
    return _answered(space, checked_table(space, table), room_bits(space, budget_bits), walked=_promoted)


def demote(space: Space, table: NDArray[np.float64], budget_bits: int) -> Solution:
    """Demote from the file of least loss down until it fits in `budget_bits`. Arguments, result and errors as in `promote`."""
    return _answered(space, checked_table(space, table), room_bits(space, budget_bits), walked=_demoted)


def _promoted(extra: NDArray[np.int64], loss: NDArray[np.float64], offered: NDArray[np.bool_], *, room: int) -> tuple[Choice, int]:
    """Return the choice and the number of steps."""
    steps = _popped(extra, loss, offered, walk=_upwards)
    paid = affordable(steps.unit, steps.bits, room)
    return choice_after(steps.start, steps.unit[paid], steps.option[paid]), len(steps.unit)


def _demoted(extra: NDArray[np.int64], loss: NDArray[np.float64], offered: NDArray[np.bool_], *, room: int) -> tuple[Choice, int]:
    """Return the choice and the number of steps."""
    steps = _popped(extra, loss, offered, walk=_downwards)
    too_many = int(extra[np.arange(len(extra)), steps.start].sum()) - room
    n = int(np.searchsorted(np.cumsum(steps.bits), too_many)) + 1 if too_many > 0 else 0
    return choice_after(steps.start, steps.unit[:n], steps.option[:n]), len(steps.unit)


def _answered(space: Space, loss: NDArray[np.float64], room: int, *, walked: Callable[..., tuple[Choice, int]]) -> Solution:
    extra = extra_bits(space)
    choice, n_steps = walked(extra, loss, space.offered, room=room)
    return proven(space, loss, choice, below=relax(extra, loss, space.offered, room_bits=room).gap(choice), n_nodes=n_steps)


class _Stairs(NamedTuple):
    """Formats of each unit from the smallest up: column k of `is_step` `(n_units, n_formats)` says whether the k-th is better than all before.

    Such a step goes from `lower` to `upper`, adds `bits` and saves `saved`, each `(n_units, n_formats)`, from `bottom` to `top` `(n_units,)`.
    """

    is_step: NDArray[np.bool_]
    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    bits: NDArray[np.int64]
    saved: NDArray[np.float64]
    bottom: Choice
    top: Choice


class _Steps(NamedTuple):
    """Steps that lead from `start` `(n_units,)`, those of a unit in their order, all `(n_steps,)`.

    `unit` goes to `option`, which is `bits` away, and `dearest` is the nats per bit of the unit's dearest step so far.
    """

    start: Choice
    unit: NDArray[np.int64]
    option: NDArray[np.int64]
    bits: NDArray[np.int64]
    dearest: NDArray[np.float64]


def _popped(extra: NDArray[np.int64], loss: NDArray[np.float64], offered: NDArray[np.bool_], *, walk: Callable[[_Stairs], _Steps]) -> _Steps:
    """Return the steps of all units in the order in which a heap would pop them."""
    firsts = range(0, len(loss), _PART)
    slices = [slice(first, first + _PART) for first in firsts]
    parts = [walk(_stairs(extra[part], loss[part], offered[part])) for part in slices]
    unit = np.concatenate([part.unit + first for part, first in zip(parts, firsts, strict=True)])
    dearest = np.concatenate([part.dearest for part in parts])
    order = np.argsort(dearest, kind="stable")
    option = np.concatenate([part.option for part in parts])[order]
    bits = np.concatenate([part.bits for part in parts])[order]
    return _Steps(np.concatenate([part.start for part in parts]), unit[order], option, bits, dearest[order])


def _stairs(extra: NDArray[np.int64], loss: NDArray[np.float64], offered: NDArray[np.bool_]) -> _Stairs:
    loss = np.where(offered, loss, np.inf)
    upper = np.lexsort((loss, np.where(offered, extra, np.iinfo(np.int64).max)), axis=1)
    sorted_loss, sorted_bits = np.take_along_axis(loss, upper, axis=1), np.take_along_axis(extra, upper, axis=1)
    below = np.minimum.accumulate(sorted_loss, axis=1)[:, :-1]  # (n_units, n_formats - 1)
    is_step = np.column_stack((np.zeros(len(loss), dtype=np.bool_), sorted_loss[:, 1:] < below))
    position = np.maximum.accumulate(np.where(is_step, np.arange(loss.shape[1]), 0), axis=1)  # of the best format so far
    lower_position = np.column_stack((position[:, :1], position[:, :-1]))
    bits = np.where(is_step, sorted_bits - np.take_along_axis(sorted_bits, lower_position, axis=1), 1)
    saved = np.zeros_like(sorted_loss)
    np.subtract(np.take_along_axis(sorted_loss, lower_position, axis=1), sorted_loss, out=saved, where=is_step)
    top = np.take_along_axis(upper, position[:, -1:], axis=1)[:, 0]
    return _Stairs(is_step, np.take_along_axis(upper, lower_position, axis=1), upper, bits, saved, upper[:, 0], top)


def _upwards(stairs: _Stairs) -> _Steps:
    """Return the promotions, a unit's smallest format first; the price of a step is minus its saving per bit."""
    slope = np.where(stairs.is_step, -stairs.saved / stairs.bits, -np.inf)
    dearest, steps = np.maximum.accumulate(slope, axis=1), np.nonzero(stairs.is_step)
    return _Steps(stairs.bottom, steps[0], stairs.upper[steps], stairs.bits[steps], dearest[steps])


def _downwards(stairs: _Stairs) -> _Steps:
    """Return the demotions, a unit's largest format first."""
    lower, bits, is_step = stairs.lower[:, ::-1], stairs.bits[:, ::-1], stairs.is_step[:, ::-1]
    cost = np.where(is_step, stairs.saved[:, ::-1] / bits, -np.inf)
    dearest, steps = np.maximum.accumulate(cost, axis=1), np.nonzero(is_step)
    return _Steps(stairs.top, steps[0], lower[steps], bits[steps], dearest[steps])
