"""Mixed-integer programme over pairs: one binary variable per offered pair, exactly one chosen per unit.

Solved by HiGHS (Huangfu & Hall, "Parallelizing the dual revised simplex method", Mathematical Programming Computation 10, 2018) through PuLP. Bits
enter as integer multiples of their greatest common divisor, losses and other fractional coefficients relative to their largest value, since HiGHS
works to absolute tolerances.
"""

from dataclasses import dataclass
from math import ceil, floor, inf

import numpy as np
import pulp
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.search.solvers.constraints import Row, whole
from bitwright.spaces import Choice

_LOSS_RANGE = 1e5  # the largest loss that HiGHS sees: its tolerances are then 1e-14 of it or less
_OPTIONS = {"mip_feasibility_tolerance": 1e-9, "primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9, "parallel": "off"}


@dataclass(frozen=True, eq=False)
class Answer:
    """Best `choice` `(n_units,)` found, its `loss` (the programme's objective), a `lower_bound` on the objective, and the nodes searched."""

    choice: Choice
    loss: float
    lower_bound: float
    n_nodes: int

    @property
    def gap(self) -> float:
        """Optimality gap: the loss exceeds the least one by at most this."""
        return max(self.loss - self.lower_bound, 0.0)


class ContradictionError(ValueError):
    """Error for an infeasible programme: no choice satisfies all constraints."""


class Programme:
    """Mixed-integer model for HiGHS over the offered pairs `(n_units, n_formats)` of a space."""

    def __init__(self, offered: NDArray[np.bool_]) -> None:
        self._offered = offered
        self._losses: list[tuple[float, pulp.LpVariable]] = []
        self._rows: list[tuple[pulp.LpConstraint, NDArray[np.float64]]] = []
        self._model = pulp.LpProblem("choice", pulp.LpMinimize)
        self._pick = {(int(u), int(f)): self._model.add_variable(f"x_{u}_{f}", cat=pulp.LpBinary) for u, f in np.argwhere(offered)}
        for unit, row in enumerate(offered):
            self._model += pulp.lpSum(self._pick[unit, int(form)] for form in np.flatnonzero(row)) == 1

    def minimise(self, loss: NDArray[np.float64]) -> None:
        """Add the losses `(n_units, n_formats)` of the chosen pairs, in nats/token, to the objective."""
        self._losses += [(float(loss[pair]), pick) for pair, pick in self._pick.items()]

    def limit(self, extra_bits: NDArray[np.int64], room_bits: int) -> None:
        """Constrain the sum of `extra_bits` `(n_units, n_formats)` over the chosen pairs to at most `room_bits`."""
        divisor = int(np.gcd.reduce(extra_bits, axis=None)) or 1
        self._model += pulp.lpSum(int(extra_bits[pair]) // divisor * pick for pair, pick in self._pick.items()) <= room_bits // divisor

    def keep(self, row: Row) -> None:
        """Add a row as a constraint. Coefficients enter relative to each unit's least, divided by the largest or, if whole, by their divisor."""
        least = np.where(self._offered, row.coefficients, inf).min(axis=1)  # (n_units,)
        above = np.where(self._offered, row.coefficients - least[:, None], 0.0)
        lower, upper, base = row.lower, row.upper, float(least.sum())
        if whole(above) and whole(least):
            scale = float(np.gcd.reduce(above.astype(np.int64), axis=None)) or 1.0
            lower, upper = (ceil((lower - base) / scale) if lower > -inf else lower), (floor((upper - base) / scale) if upper < inf else upper)
        else:
            scale = float(above.max()) or 1.0
            lower, upper = (lower - base) / scale, (upper - base) / scale
        total = pulp.lpSum(float(above[pair]) / scale * pick for pair, pick in self._pick.items())
        for constraint in ([total >= lower] if lower > -inf else []) + ([total <= upper] if upper < inf else []):
            self._model.addConstraint(constraint)
            self._rows.append((constraint, above / scale))

    def forbid(self, choice: Choice) -> None:
        """Exclude this choice `(n_units,)`."""
        self._model += pulp.lpSum(self._pick[unit, form] for unit, form in enumerate(choice.tolist())) <= len(choice) - 1

    def above(self, curve: pulp.LpVariable, slope: NDArray[np.float64], level: float) -> None:
        """Constrain `curve` to lie above a line: the sum of `slope` `(n_units, n_formats)` over the chosen pairs, plus `level`."""
        self._model += curve >= pulp.lpSum(float(slope[pair]) * pick for pair, pick in self._pick.items() if slope[pair]) + level

    def curve(self, nats_per_token: float) -> pulp.LpVariable:
        """Add a variable with the objective coefficient `nats_per_token`, bounded from below by `above` only."""
        curve = self._model.add_variable(f"z_{len(self._losses)}", None, None)
        self._losses.append((nats_per_token, curve))
        return curve

    def relaxed(self) -> tuple[NDArray[np.float64], float]:
        """Return the optimum of the linear relaxation: fractions of pairs `(n_units, n_formats)`, and their loss.

        Raises:
            ContradictionError: the relaxation is infeasible.
        """
        for pick in self._pick.values():
            pick.cat = pulp.LpContinuous
        scale = self._run(inf)
        for pick in self._pick.values():
            pick.cat = pulp.LpInteger
        return self._picked(), self._model.objective.value() / scale

    def row_prices(self) -> NDArray[np.float64]:
        """Return the dual prices of the binding rows per pair `(n_units, n_formats)`: added to the losses they give the relaxed optimum without rows.

        Raises:
            ContradictionError: the relaxation is infeasible.
        """
        self.relaxed()
        scale = self._loss_scale()
        prices = np.zeros(self._offered.shape)
        for constraint, coefficients in self._rows:
            prices -= constraint.pi / scale * coefficients
        return prices

    def solve(self, limit_seconds: float) -> Answer:
        """Return the best choice, or the best one found in time.

        Raises:
            ContradictionError: no choice satisfies all constraints.
            UserError: no choice was found in time.
        """
        scale = self._run(limit_seconds)
        if self._model.status != pulp.LpStatusOptimal:
            raise UserError(f"A choice must be found within {limit_seconds:g} s, and none was: give more time or fewer rows.")
        info = self._model.solverModel.getInfo()
        lower_bound = info.mip_dual_bound / scale
        return Answer(self._picked().argmax(axis=1), self._model.objective.value() / scale, lower_bound, max(int(info.mip_node_count), 0))

    def _run(self, limit_seconds: float) -> float:
        """Solve the model and return the factor that its losses were multiplied by."""
        scale = self._loss_scale()
        self._model.setObjective(pulp.lpSum(scale * loss * variable for loss, variable in self._losses))
        self._model.solve(pulp.HiGHS(msg=False, gapAbs=0.0, gapRel=0.0, timeLimit=limit_seconds, **_OPTIONS))
        if self._model.status == pulp.LpStatusInfeasible:
            raise ContradictionError("no choice satisfies all constraints")
        return scale

    def _loss_scale(self) -> float:
        return _LOSS_RANGE / (max((abs(loss) for loss, _ in self._losses), default=0.0) or 1.0)

    def _picked(self) -> NDArray[np.float64]:
        picked = np.zeros(self._offered.shape)
        for pair, pick in self._pick.items():
            picked[pair] = pick.value()
        return picked
