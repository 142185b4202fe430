"""The best choice within a budget: the multiple-choice knapsack, solved exactly.

The relaxation gives a price in nats per bit and a bound; an option whose reduced cost lifts the bound above a choice that `exchanges` found cannot
be part of the best one and is taken out (Sinha & Zoltners, Operations Research 27, 1979; Kellerer, Pferschy & Pisinger, "Knapsack Problems", 2004,
section 11.4). What remains is solved by the dynamic programme of `states`. That one counts losses in whole steps of 2**-51 of their range or finer,
so sums are exact in any order and ties are ties.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.search.exchanges import exchanged
from bitwright.search.instance import checked_table, extra_bits, room_bits
from bitwright.search.relaxation import Relaxation, relax
from bitwright.search.solution import Solution, proven
from bitwright.search.states import LOSS_BITS, least_loss
from bitwright.spaces import Choice, Space

_SAFE = 1e-9  # relative: an option is taken out only if it is worse by more than any rounding


def solve(space: Space, table: NDArray[np.float64], budget_bits: int, *, n_states: int = 10_000) -> Solution:
    """The choice of least loss whose file has at most `budget_bits`; of equals the one of fewest bits, then the lexicographically first.

    `table` `(n_units, n_formats)` holds nats/token for every offered pair, of any sign and in any order. The gap is zero unless the dynamic
    programme met more than `n_states` states at once, which models have not been seen to do; it is then a proven bound.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space or is not finite where a format is offered.
    """
    loss = checked_table(space, table)
    room = room_bits(space, budget_bits)
    least = np.where(space.offered, loss, np.inf).min(axis=1, keepdims=True)  # (n_units, 1)
    excess = np.where(space.offered, loss - least, 0.0)
    extra = extra_bits(space)
    kept = _worth_keeping(relax(extra, excess, space.offered, room_bits=room))
    choice, below, n_nodes = _solve_kept(extra, excess, kept, room=room, n_states=n_states)
    return proven(space, loss, choice, below=below, n_nodes=n_nodes)


def _worth_keeping(relaxation: Relaxation) -> NDArray[np.bool_]:
    """The options that the best choice may hold, `(n_units, n_formats)` bool."""
    known, _ = exchanged(relaxation)
    units, relaxed = np.arange(len(known)), relaxation.rounded_down
    paid = relaxation.loss[units, relaxed] + relaxation.price * relaxation.extra_bits[units, relaxed]  # (n_units,)
    rounding = _SAFE * (relaxation.loss[units, known].sum() + paid)
    kept: NDArray[np.bool_] = relaxation.reduced <= relaxation.gap(known) + rounding[:, None]
    return kept


def _solve_kept(
    extra: NDArray[np.int64], excess: NDArray[np.float64], kept: NDArray[np.bool_], *, room: int, n_states: int
) -> tuple[Choice, float, int]:
    """The best choice among the kept options, by how many nats/token it may miss the best loss, and the number of states."""
    choice = kept.argmax(axis=1)
    open_units = np.flatnonzero(kept.sum(axis=1) > 1)
    spent = int(extra[np.arange(len(choice)), choice].sum() - extra[open_units, choice[open_units]].sum())
    offered = kept[open_units]
    bits = _above_least(extra[open_units], offered)
    scale, losses = _whole_steps(np.where(offered, excess[open_units], 0.0))
    spent += int(np.where(offered, extra[open_units] - bits, 0).max(axis=1, initial=0).sum())
    outcome = least_loss(bits, _above_least(losses, offered), offered, room_bits=room - spent, n_kept=n_states)
    choice[open_units] = outcome.choice
    return choice, float(np.ldexp(outcome.loss - outcome.lower_bound, -scale)), outcome.n_states + 1


def _above_least(values: NDArray[np.int64], offered: NDArray[np.bool_]) -> NDArray[np.int64]:
    least = np.where(offered, values, np.iinfo(np.int64).max).min(axis=1, keepdims=True)
    return np.where(offered, values - least, 0)


def _whole_steps(excess: NDArray[np.float64]) -> tuple[int, NDArray[np.int64]]:
    """Losses as integers, in steps of 2**-scale nats/token, and the scale."""
    scale = LOSS_BITS - int(np.frexp(excess.max(axis=1).sum())[1])
    return scale, np.rint(np.ldexp(excess, scale)).astype(np.int64)
