"""Knapsack with a quadratic loss: pairwise interactions of all units that have one given format.

CoopQ (Findings of ACL 2026) minimises a'q + q'Kq over the layers q that are lowered from 4 to 2 bits, with Shapley values in a and their covariance
in K, as a mixed-integer programme whose products are variables. Where every layer covaries with every other these are many and their bound is weak;
K is positive semidefinite, though, so the form lies above each of its tangents. Here tangents are added at the last solution, first of the
relaxation and then of the integer programme, until the solution's true loss equals the programme's objective: outer approximation (Duran & Grossmann,
Mathematical Programming 36, 1986; Kelley, Journal of SIAM 8, 1960).

As q is its own square, a part of the diagonal may count as linear. As much is taken as leaves the rest convex, which makes the tangents tightest; a
K that is not semidefinite gets the reverse, so any symmetric matrix will do.
"""

import time
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.search.solvers.asked_choices import Seen
from bitwright.search.solvers.instance import checked_table, extra_bits, room_bits
from bitwright.search.solvers.knapsack import solve
from bitwright.search.solvers.milp import Programme
from bitwright.search.solvers.solution import Solution, table_loss
from bitwright.spaces import Choice, Format, Space

_TANGENTS = 60  # at most, for the relaxation
_CLOSE = 1e-3  # relative: the relaxation has converged
_PROVEN = 1e-10  # of the largest loss


def solve_quadratic(
    space: Space, table: NDArray[np.float64], budget_bits: int, *, form: Format, matrix: NDArray[np.float64], limit_seconds: float = 60.0
) -> Solution:
    """Return the choice that minimises the sum of `table` `(n_units, n_formats)` and q'Kq, and whose file has at most `budget_bits`.

    q `(n_units,)` is one where a unit is in `form` and zero elsewhere, K the symmetric `matrix` `(n_units, n_units)` in nats/token; CoopQ's linear
    part belongs in the table's column of `form`. After about `limit_seconds` the incumbent is returned with its optimality gap.

    Raises:
        BudgetError: the smallest file is larger than the budget.
        UserError: the table or matrix has another shape or is not finite, or the matrix is not symmetric.
    """
    loss, index = checked_table(space, table), space.formats.index(form)
    curved, linear = _split(_checked(space, matrix))
    loss[:, index] += linear
    best = solve(space, loss, budget_bits).choice
    tangents = _Tangents(space, loss, budget_bits, curved=curved, index=index)
    tangents.touch(best == index)
    tangents.follow_fractions()
    return tangents.closed(best, limit_seconds)


class _Tangents:
    """Programme of a `loss` `(n_units, n_formats)` plus a variable above the tangents of q'Cq, C being `curved` `(n_units, n_units)`."""

    def __init__(self, space: Space, loss: NDArray[np.float64], budget_bits: int, *, curved: NDArray[np.float64], index: int) -> None:
        self._space, self._loss, self._budget_bits, self._curved, self._index = space, loss, budget_bits, curved, index
        self._base = np.where(space.offered, loss, np.inf).min(axis=1)  # (n_units,): the programme counts losses from here
        self._unit = float(np.abs(curved).max()) or 1.0
        self._programme = Programme(space.offered)
        self._programme.limit(extra_bits(space), room_bits(space, budget_bits))
        self._programme.minimise(np.where(space.offered, loss - self._base[:, None], 0.0))
        self._curve = self._programme.curve(self._unit)
        self._seen, self._lower_bound = Seen(), -np.inf

    def touch(self, share: NDArray[Any]) -> None:
        """Add the tangent at q = `share` `(n_units,)`."""
        slope = np.zeros(self._loss.shape)
        slope[:, self._index] = 2 * self._curved @ share / self._unit
        self._programme.above(self._curve, slope, -float(share @ self._curved @ share) / self._unit)

    def follow_fractions(self) -> None:
        """Add tangents at the solutions of the linear relaxation."""
        for _ in range(_TANGENTS):
            picked, bound = self._programme.relaxed()
            self._lower_bound = max(self._lower_bound, bound + fsum(self._base.tolist()))
            share = picked[:, self._index]
            value = float(((self._loss - self._base[:, None]) * picked).sum() + share @ self._curved @ share)
            if value - bound <= _CLOSE * abs(value):
                break
            self.touch(share)

    def closed(self, best: Choice, limit_seconds: float) -> Solution:
        """Add tangents at integer solutions until the best of them and `best` is proven optimal or the time is up."""
        ends, n_nodes = time.monotonic() + limit_seconds, 0
        while self._total(best) - self._lower_bound > _PROVEN * self._largest() and (left := ends - time.monotonic()) > 0:
            try:
                answer = self._programme.solve(left)
            except UserError:  # no solution in the time left
                break
            self._lower_bound = max(self._lower_bound, answer.lower_bound + fsum(self._base.tolist()))
            n_nodes += answer.n_nodes
            if not len(self._seen.new(answer.choice[None])):
                break  # its tangent is already there, and only a tolerance separates the two
            if self._space.total_bits(answer.choice) > self._budget_bits:
                self._programme.forbid(answer.choice)
            else:
                best = min(best, answer.choice, key=self._total)
                self.touch(answer.choice == self._index)
        total = self._total(best)
        return Solution(best, total, int(self._space.total_bits(best)), min(total, self._lower_bound), n_nodes)

    def _total(self, choice: Choice) -> float:
        share = choice == self._index
        return table_loss(self._loss, choice) + float(share @ self._curved @ share)

    def _largest(self) -> float:
        return float(max(np.abs(self._loss[self._space.offered]).max(), self._unit))


def _split(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split a symmetric matrix `(n, n)` into one that is only just positive semidefinite, and a diagonal `(n,)` in proportion to its own."""
    acts = np.flatnonzero(matrix.any(axis=1))
    linear = np.zeros(len(matrix))
    if len(acts):
        own = np.diag(matrix)[acts]
        weight = np.where(own > 0, own, np.abs(matrix[acts]).sum(axis=1))
        root = np.sqrt(weight)
        linear[acts] = np.linalg.eigvalsh(matrix[np.ix_(acts, acts)] / np.outer(root, root)).min() * weight
    return matrix - np.diag(linear), linear


def _checked(space: Space, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    n_units = len(space.units)
    if matrix.shape != (n_units, n_units) or not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T, rtol=1e-9, atol=0.0):
        raise UserError(f"Interactions of {n_units} units must be a finite symmetric matrix; this one of {matrix.shape} is not: estimate it again.")
    return matrix
