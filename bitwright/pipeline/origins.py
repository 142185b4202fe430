"""Whose a plan is and what the search behind it spent, from the courses that a run keeps."""

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bitwright.errors import BudgetError
from bitwright.pipeline.run import COURSE, Run
from bitwright.pipeline.run_space import uniforms
from bitwright.spaces import Choice, PlannedEffort

KNAPSACK, UNIFORM = "knapsack", "uniform"  # with these words begin the names of the candidates that are no search's
_LIBRARIES = ("numpy", "torch", "transformers", "xllamacpp")
_MINUTE = 60.0
_NOTHING = PlannedEffort(evaluations=0, tokens=0, minutes=0)


@dataclass(frozen=True)
class Origin:
    """Whose plan it is, the method that was at work, what that spent and what it made small; see `Provenance`."""

    won: Literal["method", "table", "uniform", "given"]
    method: str = ""
    effort: PlannedEffort = _NOTHING
    objectives: tuple[str, ...] = ()


GIVEN = Origin("given")


@dataclass(frozen=True)
class Searched:
    """One search of a run: its method, its objectives, the value of every choice that it measured on all of its text, the deciding objective's, and
    what it spent.
    """

    method: str
    objectives: tuple[str, ...]
    values: dict[tuple[int, ...], float]
    effort: PlannedEffort


def searches(run: Run) -> tuple[Searched, ...]:
    """Every search of the run, in the order in which they were first kept."""
    return tuple(_searched(json.loads(text)) for text in run.store.texts(COURSE))


def finder(run: Run, choice: Choice) -> str:
    """The method whose search was the first to measure a choice in full, empty where none was."""
    key = tuple(choice.tolist())
    return next((search.method for search in searches(run) if key in search.values), "")


def own_best(run: Run, method: str, fits: Callable[[Choice], bool]) -> Choice:
    """The best choice `(n_units,)` that searches of a method measured in full and that fits.

    Raises:
        BudgetError: there is none.
    """
    values = {key: value for search in searches(run) if search.method == method for key, value in search.values.items() if fits(np.array(key))}
    if not values:
        raise BudgetError(
            f"A method's own plan is one that it has measured in full and that fits; {method} has none yet: raise --evaluations or the budget, or "
            "leave out --as-published."
        )
    return np.array(min(values, key=lambda key: values[key]))


def origin(run: Run, name: str, choice: Choice, method: str = "") -> Origin:
    """The origin of a candidate of that name. `method` is the one that was asked for, by default the one that searched last."""
    found = [search for search in searches(run) if tuple(choice.tolist()) in search.values]
    if name.startswith(KNAPSACK):
        won: Literal["method", "table", "uniform"] = "table"
    elif name.startswith(UNIFORM) or (not found and any((choice == other).all() for other in uniforms(run).values())):
        won = "uniform"
    else:
        won = "method" if found else "table"
    asked = [search for search in searches(run) if search.method == method] or list(searches(run)[-1:])
    behind = [search for search in found if search.method == method] or found if won == "method" else asked
    return Origin(won, behind[-1].method, behind[-1].effort, behind[-1].objectives) if behind else Origin(won)


def versions() -> dict[str, str]:
    """The versions of the libraries that have a part in the figures."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def _searched(record: dict[str, object]) -> Searched:
    steps: list[dict[str, float]] = record["steps"]  # type: ignore[assignment]
    choices: list[tuple[int, ...]] = [tuple(step["choice"]) for step in steps]  # type: ignore[arg-type]
    n_sequences = max((step["n_sequences"] for step in steps), default=0)
    values = {choice: step["value"] for choice, step in zip(choices, steps, strict=True) if step["n_sequences"] == n_sequences}
    tokens, seconds = (steps[-1]["tokens"], steps[-1]["seconds"]) if steps else (0, 0.0)
    effort = PlannedEffort(evaluations=len(set(choices)), tokens=int(tokens), minutes=int(seconds / _MINUTE))
    objectives: list[str] = record.get("objectives", [])  # type: ignore[assignment]
    return Searched(str(record["method"]), tuple(objectives), values, effort)
