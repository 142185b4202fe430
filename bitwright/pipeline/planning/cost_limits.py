"""Ceilings on a plan's costs beside its size, and the device on which seconds and joules are computed."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from bitwright.devices import Device
from bitwright.errors import BudgetError, ObjectiveError
from bitwright.objectives import Cost, CostObjective, KullbackLeibler
from bitwright.search import Row, solve_with_rows
from bitwright.spaces import Choice, Space, parse_budget

#: costs that can have a ceiling; the ceiling on bytes is the budget
CEILINGS = (CostObjective.ACTIVE_BYTES, CostObjective.SECONDS, CostObjective.JOULES)
_AT_MOST = re.compile(r"\s*([a-z-]+)\s*=\s*(\S.*?)\s*")

_ROUNDED = 1_000  # from here on, figures are printed without a fraction


@dataclass(frozen=True)
class CostCeiling:
    """Ceiling on a cost, in the cost's unit."""

    objective: CostObjective
    value: float

    @property
    def text(self) -> str:
        """The ceiling in words."""
        return f"{self.objective} at most {self.value:,.10g}"


@dataclass(frozen=True)
class Conditions:
    """Ceilings on costs, the device for seconds and joules if one was named, and a ceiling on the divergence in nats per token; with the latter, size
    is minimised.
    """

    at_most: tuple[CostCeiling, ...] = ()
    device: Device | None = None
    nats_at_most: float = inf


NO_CONDITIONS = Conditions()


@dataclass(frozen=True, eq=False)
class CostLimit:
    """Ceiling on a cost of one run."""

    cost: Cost
    at_most: float

    @property
    def row(self) -> Row:
        """The limit as a constraint row of an integer programme."""
        return Row(np.nan_to_num(self.cost.table), -np.inf, self.at_most - self.cost.fixed, self.text)

    @property
    def text(self) -> str:
        """The limit in words."""
        return CostCeiling(self.cost.objective, self.at_most).text

    def keeps(self, choice: Choice) -> bool:
        """Return whether a choice `(n_units,)` satisfies the limit; a choice with a pair of unknown cost does not."""
        return bool(np.isfinite(self.cost.of(choice))) and self.row.holds(choice)


def parse_costs(text: str) -> tuple[CostObjective, ...]:
    """Parse comma-separated names of costs; empty text names none.

    Raises:
        ObjectiveError: a word is no cost that can have a ceiling.
    """
    words, known = [word.strip() for word in text.split(",") if word.strip()], {cost.value: cost for cost in CEILINGS}
    for word in words:
        if word not in known:
            raise ObjectiveError(f"A third axis is a cost, {', '.join(known)}; '{word}' is none: choose one of them.")
    return tuple(known[word] for word in dict.fromkeys(words))


def parse_conditions(texts: Iterable[str], device: Device | None) -> Conditions:
    """Parse ceilings as `parse_at_most` does, and one on the divergence: `kl=0.03`.

    Raises:
        UserError: one of them cannot be read.
    """
    ceilings, nats = [], inf
    for text in texts:
        word, _, value = (part.strip() for part in text.partition("="))
        if word != KullbackLeibler.name:
            ceilings.append(parse_at_most(text))
        elif not 0 < (nats := _number(value)) < inf:
            raise ObjectiveError(f"A ceiling must be a number above zero of nats/token; '{text}' has none: write it like kl=0.03.")
    return Conditions(tuple(ceilings), device, nats)


def parse_at_most(text: str) -> CostCeiling:
    """Parse `seconds-per-token=0.05`, `joules-per-token=0.4` or `active-bytes=60MB`.

    Raises:
        ObjectiveError: the word is no cost that can have a ceiling, or the value is no number above zero.
        BudgetError: the number of bytes has an unknown unit.
    """
    found = _AT_MOST.fullmatch(text)
    known = {cost.value: cost for cost in CEILINGS}
    if not found or found[1] not in known:
        raise ObjectiveError(f"A ceiling is one of {', '.join(known)}, `=` and a number; '{text}' is not: write it like seconds-per-token=0.05.")
    objective = known[found[1]]
    if objective == CostObjective.ACTIVE_BYTES and not found[2].isdigit():
        budget = parse_budget(found[2])
        value = float(budget.size_bytes(0)) if budget.unit != "bpw" else 0.0
    else:
        value = _number(found[2])
    if not (isfinite(value) and value > 0):
        raise ObjectiveError(f"A ceiling must be a number above zero of {objective.unit}; '{text}' has none: write it like {objective}=0.05.")
    return CostCeiling(objective, value)


def _number(text: str) -> float:
    """Return the number in `text`, or 0 if it is not a number."""
    return float(text) if re.fullmatch(r"\d*\.?\d+(e[+-]?\d+)?", text) else 0.0


def require_possible(space: Space, size_bytes: int, limits: tuple[CostLimit, ...]) -> None:
    """Raise if no choice of at most `size_bytes` satisfies the limits.

    Raises:
        BudgetError: names the first limit that cannot be satisfied together with those before it, and by how much it is missed.
    """
    for i, limit in enumerate(limits):
        earlier = limits[:i]
        cheapest = solve_with_rows(
            space, np.where(space.offered, limit.cost.table, 0.0), 8 * size_bytes, rows=tuple(other.row for other in earlier)
        ).choice
        least = float(limit.cost.of(cheapest))
        if not limit.keeps(cheapest):
            objective, above = limit.cost.objective, least / limit.at_most - 1
            figure = f"{least:,.0f}" if least >= _ROUNDED else f"{least:.4g}"
            beside = "".join(f" and {other.text}" for other in earlier)
            raise BudgetError(
                f"A ceiling must leave a choice; within {size_bytes:,} bytes{beside} no plan takes less than {figure} "
                f"{objective.unit}, {100 * above:.1f} % above {objective}={limit.at_most:,.10g}: raise it, "
                f"{'or one of the others, ' if earlier else ''}or offer other formats."
            )
