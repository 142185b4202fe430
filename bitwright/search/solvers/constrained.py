"""The knapsack with side constraints: rows over the same pairs that a choice must keep as well, as a mixed-integer programme.

Where the knapsack's own answer keeps the rows it is the best there is, and nothing else is asked.

What HiGHS answers is checked again in whole bits; an answer that a tolerance let through is forbidden by name and the search goes on. Where nothing
can be answered, rows are dropped one at a time for as long as the rest still contradict each other; those that are left are the contradiction
(the deletion filter: Chinneck & Dravnieks, "Locating minimal infeasible constraint sets in linear programs", ORSA Journal on Computing 3, 1991).
"""

from math import inf

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.search.solvers.constraints import TOLERANCE, Row
from bitwright.search.solvers.instance import checked_table, extra_bits, room_bits
from bitwright.search.solvers.knapsack import solve
from bitwright.search.solvers.milp import ContradictionError, Programme
from bitwright.search.solvers.solution import Solution, proven
from bitwright.spaces import Space


def solve_with_rows(space: Space, table: NDArray[np.float64], budget_bits: int, *, rows: tuple[Row, ...], limit_seconds: float = 60.0) -> Solution:
    """The choice of least loss whose file has at most `budget_bits` and which keeps all `rows`.

    `table` `(n_units, n_formats)` is in nats/token. After `limit_seconds` the best choice so far is given with the gap that is left. Among
    equally good choices HiGHS takes the same one each time, but not by a rule.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: a table or row of another shape or with values that are not finite; rows that cannot all hold, of which those that contradict each
            other are named; no choice found in time.
    """
    loss = checked_table(space, table)
    room = room_bits(space, budget_bits)
    for index, row in enumerate(rows):
        _require_possible(space, row, index)
    alone = solve(space, loss, budget_bits)
    if all(row.holds(alone.choice) for row in rows):
        return alone
    programme = _whole_programme(space, loss, room, rows)
    while True:
        try:
            answer = programme.solve(limit_seconds)
        except ContradictionError as error:
            raise UserError(_contradiction(space, room, rows, limit_seconds=limit_seconds)) from error
        solution = proven(space, loss, answer.choice, below=answer.gap, n_nodes=answer.n_nodes)
        if solution.size_bits <= budget_bits and all(row.holds(solution.choice) for row in rows):
            return solution
        programme.forbid(solution.choice)


def row_prices(space: Space, table: NDArray[np.float64], budget_bits: int, *, rows: tuple[Row, ...]) -> NDArray[np.float64]:
    """What each pair `(n_units, n_formats)` costs beside its loss, in nats/token, for what it takes of the `rows`: their prices in the relaxation.

    With these added to a table like `table` the knapsack alone answers near the rows, at a hundredth of the time (Everett, Operations Research 11,
    1963). Zero where no row binds.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: rows that cannot all hold.
    """
    loss, room = checked_table(space, table), room_bits(space, budget_bits)
    try:
        return _whole_programme(space, loss, room, rows).row_prices() if rows else np.zeros(loss.shape)
    except ContradictionError as error:
        raise UserError(_contradiction(space, room, rows, limit_seconds=60.0)) from error


def _whole_programme(space: Space, loss: NDArray[np.float64], room: int, rows: tuple[Row, ...]) -> Programme:
    programme = _programme(space, rows)
    programme.limit(extra_bits(space), room)
    least = np.where(space.offered, loss, inf).min(axis=1, keepdims=True)  # (n_units, 1)
    programme.minimise(np.where(space.offered, loss - least, 0.0))
    return programme


def _programme(space: Space, rows: tuple[Row, ...]) -> Programme:
    programme = Programme(space.offered)
    for row in rows:
        programme.keep(row)
    return programme


def _require_possible(space: Space, row: Row, index: int) -> None:
    if row.coefficients.shape != space.offered.shape or not np.isfinite(row.coefficients[space.offered]).all():
        raise UserError(
            f"A row must have a finite coefficient for each offered pair of {space.offered.shape}; row {index} of shape {row.coefficients.shape} "
            "has not: fill it again."
        )
    least = float(np.where(space.offered, row.coefficients, inf).min(axis=1).sum())
    most = float(np.where(space.offered, row.coefficients, -inf).max(axis=1).sum())
    slack = TOLERANCE * float(np.where(space.offered, np.abs(row.coefficients), 0.0).max(axis=1).sum())
    if not (row.lower <= row.upper and row.lower <= most + slack and row.upper >= least - slack):
        raise UserError(
            f"The rows cannot all hold: {_called(row, index)} asks for a sum between {row.lower:g} and {row.upper:g}, but its sums go from "
            f"{least:g} to {most:g}; widen it."
        )


def _contradiction(space: Space, room: int, rows: tuple[Row, ...], *, limit_seconds: float) -> str:
    """Which rows contradict each other, in a sentence. What cannot be decided in time counts as possible, so a row too many may be named."""

    def possible(indices: list[int], room_bits: int) -> bool:
        programme = _programme(space, tuple(rows[i] for i in indices))
        programme.limit(extra_bits(space), room_bits)
        try:
            programme.solve(limit_seconds)
        except ContradictionError:
            return False
        except UserError:
            return True
        return True

    left = list(range(len(rows)))
    for index in range(len(rows)):
        rest = [i for i in left if i != index]
        left = left if possible(rest, room) else rest
    named = " and ".join(_called(rows[i], i) for i in left)
    if possible(left, int(extra_bits(space).max(axis=1).sum())):
        return f"The rows cannot all hold within the budget: {named} ask{'s' * (len(left) == 1)} for a larger file; widen a row, or raise the budget."
    return f"The rows cannot all hold: {named} contradict each other, whatever the budget; widen one of them, or drop it."


def _called(row: Row, index: int) -> str:
    return f"row {index} ({row.name})" if row.name else f"row {index}"
