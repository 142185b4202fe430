"""Multiple-choice knapsack with sparse pairwise interactions: losses added only where two units have certain formats at once.

Every interaction becomes a variable of the mixed-integer programme (`Programme.couple`): exact, and quick where each unit interacts with a few
others, such as its neighbours in the network. Where all interact with all, its bound is weak, and `quadratic` is the better solver.
"""

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.search.solvers.instance import checked_table, extra_bits, room_bits
from bitwright.search.solvers.milp import Pairs, Programme
from bitwright.search.solvers.solution import Solution, table_loss
from bitwright.spaces import Choice, Space


@dataclass(frozen=True, eq=False)
class Interactions:
    """Pairwise losses added to the sum of a table where two units have certain formats: `loss` `(n,)` in nats/token, of any sign.

    Interaction i is between `first[i]` and `second[i]`, each a unit and a format `(n, 2)`, the two of different units.
    """

    first: Pairs
    second: Pairs
    loss: NDArray[np.float64]

    def total(self, choice: Choice) -> float:
        """Return the summed interactions of a choice `(n_units,)` in nats/token."""
        counts = (choice[self.first[:, 0]] == self.first[:, 1]) & (choice[self.second[:, 0]] == self.second[:, 1])
        return fsum(self.loss[counts].tolist())


def solve_interacting(
    space: Space, table: NDArray[np.float64], budget_bits: int, *, interactions: Interactions, limit_seconds: float = 60.0
) -> Solution:
    """Return the choice of least loss, the sum of `table` `(n_units, n_formats)` and `interactions`, whose file has at most `budget_bits`.

    After `limit_seconds` the incumbent is returned with its optimality gap. Among equally good choices HiGHS returns the same one each time.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table has another shape than the space or is not finite where a format is offered; an interaction is of a pair that is not
            offered, within one unit, or not finite; no choice was found in time.
    """
    loss, room = checked_table(space, table), room_bits(space, budget_bits)
    _require_offered(space, interactions)
    least = np.where(space.offered, loss, np.inf).min(axis=1, keepdims=True)  # (n_units, 1)
    programme = Programme(space.offered)
    programme.limit(extra_bits(space), room)
    programme.minimise(np.where(space.offered, loss - least, 0.0))
    programme.couple(interactions.first, interactions.second, interactions.loss)
    while True:
        answer = programme.solve(limit_seconds)
        size_bits = int(space.total_bits(answer.choice))
        if size_bits <= budget_bits:
            total = table_loss(loss, answer.choice) + interactions.total(answer.choice)
            return Solution(answer.choice, total, size_bits, total - answer.gap, answer.n_nodes)
        programme.forbid(answer.choice)


def _require_offered(space: Space, interactions: Interactions) -> None:
    first, second, loss = interactions.first, interactions.second, interactions.loss
    if first.shape != (len(loss), 2) or second.shape != first.shape or (first[:, 0] == second[:, 0]).any():
        raise UserError(
            f"An interaction must be between formats of two different units; these are of shapes {first.shape} and {second.shape}: add the loss of a "
            "single unit to the table."
        )
    if not (space.offered[tuple(first.T)].all() and space.offered[tuple(second.T)].all() and np.isfinite(loss).all()):
        raise UserError("An interaction must be between offered pairs and have a finite loss, but one has not: leave it out.")
