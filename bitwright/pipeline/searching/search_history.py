"""Search histories of a run for the report: progress by tokens read, and the cross-validated accuracy of the predictor."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.methods import PREDICTOR, Method
from bitwright.pipeline.run import HISTORY_PREFIX, Run
from bitwright.pipeline.searching.ask_tell_loop import SearchResult
from bitwright.predictors import Folds, Measured, cross_validate, predictor_named
from bitwright.predictors import Validation as CrossValidation
from bitwright.report import Forecast, SearchHistory, SearchStep, SizeLimit, Validation
from bitwright.search import hypervolume

_FOLDS = 5
_ENOUGH = 10  # fewest measured choices for a meaningful cross-validation


def store_history(run: Run, explored: SearchResult, *, method: Method, objectives: Sequence[str], limit: SizeLimit | None) -> None:
    """Store the history of a search in its run, replacing an earlier one of the same method and goal."""
    goal = {"size_bytes": limit.size_bytes} if limit else {}
    steps = [
        {
            "choice": list(measurement.choice),
            "value": measurement.first.value,
            "standard_error": measurement.first.standard_error,
            "n_sequences": measurement.n_sequences,
            "tokens": spent.tokens,
            "seconds": spent.seconds,
        }
        for measurement, spent in explored.steps
    ]
    record = {"method": method.name, "source": method.source, "is_finished": explored.is_finished, "objectives": list(objectives), "steps": steps}
    run.store.put_text(f"{HISTORY_PREFIX}{method.name} {goal.get('size_bytes', 'front')}", json.dumps(record | goal))


def courses(run: Run) -> tuple[SearchHistory, ...]:
    """Return the history of every search of the run, in the order in which they were stored."""
    return tuple(_course(run, record) for record in map(json.loads, run.store.texts(HISTORY_PREFIX)) if record["steps"])


def _course(run: Run, record: dict[str, object]) -> SearchHistory:
    asked: list[dict[str, Any]] = record["steps"]  # type: ignore[assignment]
    last = {tuple(step["choice"]): step for step in asked}  # of a choice measured on more and more text
    steps = sorted(last.values(), key=lambda step: step["tokens"])
    choices = np.array([step["choice"] for step in steps], dtype=np.int64)
    values, errors, n_sequences = (np.array([step[name] for step in steps]) for name in ("value", "standard_error", "n_sequences"))
    sizes = run.space.total_bits(choices) // 8
    limit = SizeLimit(int(str(record["size_bytes"]))) if "size_bytes" in record else None
    whole = n_sequences == n_sequences.max()
    fits = whole & (sizes <= (limit.size_bytes if limit else np.inf))
    return SearchHistory(
        method=str(record["method"]),
        source=str(record["source"]),
        goal=limit,
        steps=tuple(
            SearchStep(int(size), step["value"], step["standard_error"], int(step["n_sequences"]), int(step["tokens"]), step["seconds"])
            for size, step in zip(sizes, steps, strict=True)
        ),
        hypervolume=_areas(np.column_stack([values, sizes]), whole),
        incumbent=np.minimum.accumulate(np.where(fits, values, np.inf)),
        forecast=_forecast(run, choices[whole], values[whole], errors=errors[whole]),
        is_finished=bool(record["is_finished"]),
    )


def _areas(points: NDArray[np.float64], whole: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the hypervolume after each step `(n_steps,)`, as a share of the final one."""
    reference = 1.01 * points.max(axis=0)
    areas = np.array([hypervolume(points[: n + 1][whole[: n + 1]], reference) for n in range(len(points))])
    return areas / areas[-1] if areas[-1] > 0 else areas


def _forecast(run: Run, choices: NDArray[np.int64], values: NDArray[np.float64], *, errors: NDArray[np.float64]) -> Forecast | None:
    """Cross-validate the predictor on the choices measured on all of the text."""
    if len(choices) < _ENOUGH or not (values > 0).all() or not np.isfinite(errors).all():
        return None
    predictor = predictor_named(PREDICTOR, run.space, run.table, seed=run.settings.seed)
    # all were measured on, and are predicted for, the same sequences, so they share their noise
    found = cross_validate(predictor, Measured(choices, values, errors, np.zeros(len(values))), Folds(_FOLDS, run.settings.seed))
    return Forecast(values, errors, found.means, found.means - found.half_widths, found.means + found.half_widths, _figures(found))


def _figures(found: CrossValidation) -> Validation:
    return Validation(PREDICTOR, len(found.values), found.spearman, found.kendall, found.root_mean_square, found.coverage)
