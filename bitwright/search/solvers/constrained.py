"""Multiple-choice knapsack with side constraints (rows over the same pairs), as a mixed-integer programme.

Where the solution of the plain knapsack satisfies the rows it is optimal, and no programme is solved.

A solution of HiGHS is checked again in whole bits; one that only its tolerance let through is excluded by a cut, and the programme is solved again.
Where the programme is infeasible, rows are dropped one at a time as long as the rest stay infeasible; the rows left are an irreducible infeasible
set (the deletion filter: Chinneck & Dravnieks, "Locating minimal infeasible constraint sets in linear programs", ORSA Journal on Computing 3, 1991).
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
    """Return the choice of least loss whose file has at most `budget_bits` and which satisfies all `rows`.

    `table` `(n_units, n_formats)` is in nats/token. After `limit_seconds` the incumbent is returned with its optimality gap. Among equally good
    choices HiGHS returns the same one each time, but by no documented rule.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table or a row has another shape than the space or values that are not finite; the rows are infeasible together (the
            contradicting ones are named); no choice was found in time.
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
    """Return the shadow prices of the `rows` per pair `(n_units, n_formats)`, in nats/token, from the dual of the linear relaxation.

    Added to a table like `table` they make the plain knapsack nearly satisfy the rows, at a hundredth of the time (Everett, Operations Research 11,
    1963). Zero where no row binds.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the rows are infeasible together.
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
            "does not: correct its coefficients."
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
    """Return a sentence that names the rows that contradict each other. A subset not decided in time counts as feasible, so it may name too many."""

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
