"""The knapsack with side constraints: rows over the same pairs that a choice must keep as well, as a mixed-integer programme.

One binary variable for each offered pair, one of each unit chosen; solved by HiGHS (Huangfu & Hall, "Parallelizing the dual revised simplex
method", Mathematical Programming Computation 10, 2018) through PuLP. Bits enter as whole multiples of their greatest common divisor and losses
and rows relative to their largest value, since HiGHS works to absolute tolerances. Its answer is checked again in whole bits; one that a
tolerance let through is forbidden by name and the search goes on.
"""

from dataclasses import dataclass
from math import fsum, inf

import numpy as np
import pulp
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.search.instance import checked_table, extra_bits, room_bits
from bitwright.search.solution import Solution, proven
from bitwright.spaces import Choice, Space

_LOSS_RANGE = 1e5  # the largest loss that HiGHS sees: its tolerances are then 1e-14 of it or less
_ROW_TOLERANCE = 1e-9  # relative to the sum of the largest coefficients of all units
_OPTIONS = {"mip_feasibility_tolerance": 1e-9, "primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9, "parallel": "off"}


@dataclass(frozen=True, eq=False)
class Row:
    """A side constraint: the sum of `coefficients` `(n_units, n_formats)` over a choice lies between `lower` and `upper`, both included.

    `-inf` and `inf` leave an end open. Coefficients where nothing is offered mean nothing.
    """

    coefficients: NDArray[np.float64]
    lower: float
    upper: float

    def holds(self, choice: Choice) -> bool:
        """Whether a choice `(n_units,)` keeps the row, up to rounding of the sum."""
        chosen = self.coefficients[np.arange(len(choice)), choice]
        slack = _ROW_TOLERANCE * float(np.abs(chosen).sum())
        return self.lower - slack <= fsum(chosen.tolist()) <= self.upper + slack


def solve_with_rows(space: Space, table: NDArray[np.float64], budget_bits: int, *, rows: tuple[Row, ...], limit_seconds: float = 60.0) -> Solution:
    """The choice of least loss whose file has at most `budget_bits` and which keeps all `rows`.

    `table` `(n_units, n_formats)` is in nats/token. After `limit_seconds` the best choice so far is given with the gap that is left. Among
    equally good choices HiGHS takes the same one each time, but not by a rule.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: a table or row of another shape or with values that are not finite; rows that cannot all hold; no choice found in time.
    """
    loss = checked_table(space, table)
    room = room_bits(space, budget_bits)
    least = np.where(space.offered, loss, inf).min(axis=1, keepdims=True)  # (n_units, 1)
    programme = _Programme(space, np.where(space.offered, loss - least, 0.0))
    programme.limit(extra_bits(space), room)
    for index, row in enumerate(rows):
        _require_possible(space, row, index)
        programme.keep(row)
    while True:
        choice, below, n_nodes = programme.solve(limit_seconds)
        solution = proven(space, loss, choice, below=below, n_nodes=n_nodes)
        if solution.size_bits <= budget_bits and all(row.holds(choice) for row in rows):
            return solution
        programme.forbid(choice)


def _require_possible(space: Space, row: Row, index: int) -> None:
    if row.coefficients.shape != space.offered.shape or not np.isfinite(row.coefficients[space.offered]).all():
        raise UserError(
            f"A row must have a finite coefficient for each offered pair of {space.offered.shape}; row {index} of shape {row.coefficients.shape} "
            "has not: fill it again."
        )
    least = float(np.where(space.offered, row.coefficients, inf).min(axis=1).sum())
    most = float(np.where(space.offered, row.coefficients, -inf).max(axis=1).sum())
    if not (row.lower <= row.upper and row.lower <= most + _ROW_TOLERANCE * abs(most) and row.upper >= least - _ROW_TOLERANCE * abs(least)):
        raise UserError(
            f"The rows cannot all hold: row {index} asks for a sum between {row.lower:g} and {row.upper:g}, but its sums go from {least:g} to "
            f"{most:g}; widen it."
        )


class _Programme:
    """The model that HiGHS is given."""

    def __init__(self, space: Space, excess: NDArray[np.float64]) -> None:
        self._offered = space.offered
        self._scale = _LOSS_RANGE / (float(excess.max()) or 1.0)
        self._model = pulp.LpProblem("rows", pulp.LpMinimize)
        self._pick = {(int(u), int(f)): self._model.add_variable(f"x_{u}_{f}", cat=pulp.LpBinary) for u, f in np.argwhere(space.offered)}
        self._model += pulp.lpSum(self._scale * float(excess[pair]) * pick for pair, pick in self._pick.items())
        for unit, offered in enumerate(space.offered):
            self._model += pulp.lpSum(self._pick[unit, int(form)] for form in np.flatnonzero(offered)) == 1

    def limit(self, extra: NDArray[np.int64], room: int) -> None:
        """Extra bits `(n_units, n_formats)` sum to at most `room`."""
        divisor = int(np.gcd.reduce(extra, axis=None)) or 1
        self._model += pulp.lpSum(int(extra[pair]) // divisor * pick for pair, pick in self._pick.items()) <= room // divisor

    def keep(self, row: Row) -> None:
        """Coefficients relative to each unit's least, over the largest of them."""
        least = np.where(self._offered, row.coefficients, inf).min(axis=1)  # (n_units,)
        above = np.where(self._offered, row.coefficients - least[:, None], 0.0)
        scale = float(above.max()) or 1.0
        total = pulp.lpSum(float(above[pair]) / scale * pick for pair, pick in self._pick.items())
        if row.lower > -inf:
            self._model += total >= (row.lower - float(least.sum())) / scale
        if row.upper < inf:
            self._model += total <= (row.upper - float(least.sum())) / scale

    def forbid(self, choice: Choice) -> None:
        """Any choice but this one `(n_units,)`."""
        self._model += pulp.lpSum(self._pick[unit, form] for unit, form in enumerate(choice.tolist())) <= len(choice) - 1

    def solve(self, limit_seconds: float) -> tuple[Choice, float, int]:
        """The best choice `(n_units,)`, by how many nats/token it may miss the best loss, and the nodes of the branch and bound."""
        self._model.solve(pulp.HiGHS(msg=False, gapAbs=0.0, gapRel=0.0, timeLimit=limit_seconds, **_OPTIONS))
        if self._model.status == pulp.LpStatusInfeasible:
            raise UserError("The rows cannot all hold within the budget, though each could alone: widen a row, drop one, or raise the budget.")
        if self._model.status != pulp.LpStatusOptimal:
            raise UserError(f"A choice must be found within {limit_seconds:g} s, and none was: give more time or fewer rows.")
        chosen = np.zeros(self._offered.shape)
        for pair, pick in self._pick.items():
            chosen[pair] = pick.value()
        info = self._model.solverModel.getInfo()
        below = (self._model.objective.value() - info.mip_dual_bound) / self._scale
        return chosen.argmax(axis=1), float(below), max(int(info.mip_node_count), 0)
