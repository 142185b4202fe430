"""Origin of a plan: the candidate that won, the method that searched, and the effort it spent, from the stored search histories of a run."""

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bitwright.errors import BudgetError
from bitwright.pipeline.pricing.run_space import uniforms
from bitwright.pipeline.run import HISTORY_PREFIX, Run
from bitwright.spaces import Choice, PlannedEffort

KNAPSACK, UNIFORM = "knapsack", "uniform"  # names of candidates that no search found begin with one of these
_LIBRARIES = ("numpy", "torch", "transformers", "xllamacpp")
_MINUTE = 60.0
_NOTHING = PlannedEffort(evaluations=0, tokens=0, minutes=0)


@dataclass(frozen=True)
class Origin:
    """Kind of candidate that won, the method that searched, the effort it spent and its objectives; see `Provenance`."""

    won: Literal["method", "table", "uniform", "given"]
    method: str = ""
    effort: PlannedEffort = _NOTHING
    objectives: tuple[str, ...] = ()


GIVEN = Origin("given")


@dataclass(frozen=True)
class SearchRecord:
    """Record of a search: its method, its objectives, the first objective of every choice that it measured on all of its text, and the effort it
    spent.
    """

    method: str
    objectives: tuple[str, ...]
    values: dict[tuple[int, ...], float]
    effort: PlannedEffort


def searches(run: Run) -> tuple[SearchRecord, ...]:
    """Return every search of the run, in the order in which they were first stored."""
    return tuple(_searched(json.loads(text)) for text in run.store.texts(HISTORY_PREFIX))


def finder(run: Run, choice: Choice) -> str:
    """Return the method whose search measured a choice on all of the text first; empty if none did."""
    key = tuple(choice.tolist())
    return next((search.method for search in searches(run) if key in search.values), "")


def own_best(run: Run, method: str, fits: Callable[[Choice], bool]) -> Choice:
    """Return the best fitting choice `(n_units,)` that searches of a method measured on all of the text.

    Raises:
        BudgetError: there is none.
    """
    values = {key: value for search in searches(run) if search.method == method for key, value in search.values.items() if fits(np.array(key))}
    if not values:
        raise BudgetError(
            f"A method's own plan must fit and be measured on all of the text; {method} has none yet: raise --evaluations or the budget, or "
            "leave out --as-published."
        )
    return np.array(min(values, key=lambda key: values[key]))


def origin(run: Run, name: str, choice: Choice, method: str = "") -> Origin:
    """Return the origin of a candidate of that name. `method` is the requested method, by default the one that searched last."""
    known = searches(run)
    found = [search for search in known if tuple(choice.tolist()) in search.values]
    if name.startswith(KNAPSACK):
        won: Literal["method", "table", "uniform"] = "table"
    elif name.startswith(UNIFORM) or (not found and any((choice == other).all() for other in uniforms(run).values())):
        won = "uniform"
    else:
        won = "method" if found else "table"
    requested = [search for search in known if search.method == method] or list(known[-1:])
    credited = [search for search in found if search.method == method] or found if won == "method" else requested
    return Origin(won, credited[-1].method, credited[-1].effort, credited[-1].objectives) if credited else Origin(won)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that affect the measurements."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def _searched(record: dict[str, object]) -> SearchRecord:
    steps: list[dict[str, float]] = record["steps"]  # type: ignore[assignment]
    choices: list[tuple[int, ...]] = [tuple(step["choice"]) for step in steps]  # type: ignore[arg-type]
    n_sequences = max((step["n_sequences"] for step in steps), default=0)
    values = {choice: step["value"] for choice, step in zip(choices, steps, strict=True) if step["n_sequences"] == n_sequences}
    tokens, seconds = (steps[-1]["tokens"], steps[-1]["seconds"]) if steps else (0, 0.0)
    effort = PlannedEffort(evaluations=len(set(choices)), tokens=int(tokens), minutes=int(seconds / _MINUTE))
    objectives: list[str] = record.get("objectives", [])  # type: ignore[assignment]
    return SearchRecord(str(record["method"]), tuple(objectives), values, effort)
