"""Exact solver of the multiple-choice knapsack: the choice of least loss within a budget.

The relaxation gives a price in nats per bit and a bound; an option whose reduced cost lifts the bound above a choice that `exchanges` found cannot
be part of the best one and is pruned (Sinha & Zoltners, Operations Research 27, 1979; Kellerer, Pferschy & Pisinger, "Knapsack Problems", 2004,
section 11.4). The remaining options are solved by the dynamic programme of `states`. It counts losses in integer steps of 2**-51 of their range or
finer, so sums are exact in any order and ties are ties.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.exchanges import exchanged
from bitwright.search.solvers.instance import checked_table, extra_bits, room_bits
from bitwright.search.solvers.relaxation import Relaxation, relax
from bitwright.search.solvers.solution import Solution, proven
from bitwright.search.solvers.states import LOSS_BITS, least_loss
from bitwright.spaces import Choice, Space

_CORE, _CORE_STATES = 250, 1_000  # options of least reduced cost, and states kept for them
_SAFE = 1e-9  # relative: an option is pruned only if it is worse by more than any rounding


def solve(space: Space, table: NDArray[np.float64], budget_bits: int, *, n_states: int = 10_000) -> Solution:
    """Return the choice of least loss whose file has at most `budget_bits`; of equals the one of fewest bits, then the lexicographically first.

    `table` `(n_units, n_formats)` holds nats/token for every offered pair, of any sign and in any order. The gap is zero unless the dynamic
    programme exceeded `n_states` states at once, which has not been seen on models; it is then a proven bound.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space or is not finite where a format is offered.
    """
    loss = checked_table(space, table)
    room = room_bits(space, budget_bits)
    least = np.where(space.offered, loss, np.inf).min(axis=1, keepdims=True)  # (n_units, 1)
    excess = np.where(space.offered, loss - least, 0.0)
    relaxation = relax(extra_bits(space), excess, space.offered, room_bits=room)
    kept, n_looked_at = _worth_keeping(relaxation)
    choice, below, n_nodes = _solve_kept(relaxation, kept, n_states)
    return proven(space, loss, choice, below=below, n_nodes=n_looked_at + n_nodes)


def _worth_keeping(relaxation: Relaxation) -> tuple[NDArray[np.bool_], int]:
    """Return the options that the best choice may hold, `(n_units, n_formats)` bool, and the number of states used to find out.

    Where many options are left, the programme is first solved for those of least reduced cost: the core (Pisinger, European Journal of Operational
    Research 83, 1995), whose best choice is seldom worse than the optimum and leaves few options.
    """
    known, _ = exchanged(relaxation)
    kept = _no_dearer(relaxation, known)
    rivals = relaxation.reduced[kept & (relaxation.reduced > 0)]
    if len(rivals) <= _CORE:
        return kept, 0
    core = relaxation.reduced <= np.partition(rivals, _CORE)[_CORE]
    core[np.arange(len(known)), relaxation.rounded_down] = True  # despite rounding, a choice must be left
    better, _, n_nodes = _solve_kept(relaxation, core, _CORE_STATES)
    return _no_dearer(relaxation, min(known, better, key=relaxation.gap)), n_nodes


def _no_dearer(relaxation: Relaxation, known: Choice) -> NDArray[np.bool_]:
    """Mask of the options whose reduced costs do not lift the bound above the loss of a `known` choice `(n_units,)`: `(n_units, n_formats)`."""
    units, relaxed = np.arange(len(known)), relaxation.rounded_down
    paid = relaxation.loss[units, relaxed] + relaxation.price * relaxation.extra_bits[units, relaxed]  # (n_units,)
    rounding = _SAFE * (relaxation.loss[units, known].sum() + paid)
    kept: NDArray[np.bool_] = relaxation.reduced <= relaxation.gap(known) + rounding[:, None]
    return kept


def _solve_kept(relaxation: Relaxation, kept: NDArray[np.bool_], n_states: int) -> tuple[Choice, float, int]:
    """Return the best choice among the remaining options, its gap in nats/token, and the number of states."""
    extra, excess = relaxation.extra_bits, relaxation.loss
    choice = kept.argmax(axis=1)
    open_units = np.flatnonzero(kept.sum(axis=1) > 1)
    spent = int(extra[np.arange(len(choice)), choice].sum() - extra[open_units, choice[open_units]].sum())
    offered = kept[open_units]
    bits = _above_least(extra[open_units], offered)
    scale, losses = _whole_steps(np.where(offered, excess[open_units], 0.0))
    spent += int(np.where(offered, extra[open_units] - bits, 0).max(axis=1, initial=0).sum())
    outcome = least_loss(bits, _above_least(losses, offered), offered, room_bits=relaxation.room_bits - spent, n_kept=n_states)
    choice[open_units] = outcome.choice
    return choice, float(np.ldexp(outcome.loss - outcome.lower_bound, -scale)), outcome.n_states + 1


def _above_least(values: NDArray[np.int64], offered: NDArray[np.bool_]) -> NDArray[np.int64]:
    least = np.where(offered, values, np.iinfo(np.int64).max).min(axis=1, keepdims=True)
    return np.where(offered, values - least, 0)


def _whole_steps(excess: NDArray[np.float64]) -> tuple[int, NDArray[np.int64]]:
    """Return the scale, and losses as integers in steps of 2**-scale nats/token."""
    scale = LOSS_BITS - int(np.frexp(excess.max(axis=1).sum())[1])
    return scale, np.rint(np.ldexp(excess, scale)).astype(np.int64)
