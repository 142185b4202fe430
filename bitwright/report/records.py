"""JSON export of a finished run. Numbers that are not finite are `null`."""

import json
from dataclasses import asdict
from math import isfinite

from bitwright.report.cost_front import CostFront
from bitwright.report.limits import SizeLimit
from bitwright.report.search_history import Forecast, SearchHistory
from bitwright.report.shipping import Shipping
from bitwright.report.summary import Candidate, Quality, RunSummary

Record = dict[str, object]


def front_json(summary: RunSummary) -> str:
    """Return the predicted front, fronts on three axes where costs were asked for, all candidates and the history of every search, as JSON.

    A candidate without `measured` was predicted only; a search without `goal_bytes` was for the whole front, and one without `forecast` has no
    validated predictor.
    """
    record: Record = {
        "model": summary.model,
        "target": summary.target,
        "n_weights": summary.n_weights,
        "original_bytes": summary.original_bytes,
        "front": [
            {
                "size_bytes": int(size_bytes),
                "bits_per_weight": 8 * int(size_bytes) / summary.n_weights,
                "sum_of_prices": float(summed),
                "predicted_nats_per_token": float(nats),
            }
            for size_bytes, summed, nats in zip(summary.front_sizes_bytes, summary.front_sums, summary.front_nats, strict=True)
        ],
        "front_within_bits": _within_bits(summary),
        "candidates": [_candidate(candidate) for candidate in summary.candidates],
        "courses": [_course(course) for course in summary.courses],
    }
    if isinstance(summary.shipping, Shipping):
        ranks = {name: _finite(value) for name, value in (("spearman", summary.shipping.spearman), ("kendall", summary.shipping.kendall))}
        record["shipping"] = asdict(summary.shipping) | ranks
    if summary.cost_fronts:
        record["cost_fronts"] = [_cost_front(front) for front in summary.cost_fronts]
    if isinstance(summary.budget, SizeLimit):
        record["budget_bytes"] = summary.budget.size_bytes
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def _within_bits(summary: RunSummary) -> list[Record] | None:
    front = summary.within_bits
    if front is None:
        return None
    return [
        {"size_bytes": size_bytes, "predicted_nats_per_token": nats}
        for size_bytes, nats in zip(front.sizes_bytes.tolist(), front.nats.tolist(), strict=True)
    ]


def _cost_front(front: CostFront) -> Record:
    columns = zip(front.sizes_bytes.tolist(), front.taken.tolist(), front.nats.tolist(), strict=True)
    points = [{"size_bytes": size, "taken": taken, "predicted_nats_per_token": nats} for size, taken, nats in columns]
    return {"cost": front.cost, "unit": front.unit, "device": front.device, "points": points, "of_candidates": front.of_candidates.tolist()}


def _candidate(candidate: Candidate) -> Record:
    record: Record = {
        "label": candidate.label,
        "kind": candidate.kind,
        "chosen": candidate.chosen,
        "size_bytes": candidate.size_bytes,
        "bits_per_weight": candidate.bits_per_weight,
        "sum_of_prices": candidate.summed,
        "predicted_nats_per_token": candidate.predicted_nats,
    }
    if isinstance(candidate.measured, Quality):
        record["measured"] = asdict(candidate.measured)
    return record


def _course(course: SearchHistory) -> Record:
    """Return the record of one search; each of its `steps` has the hypervolume and the best divergence after it."""
    so_far = zip(course.steps, course.hypervolume, course.incumbent, strict=True)
    record: Record = {
        "method": course.method,
        "source": course.source,
        "is_finished": course.is_finished,
        "steps": [asdict(step) | {"hypervolume": float(area), "best_nats_per_token": _finite(best)} for step, area, best in so_far],
    }
    if isinstance(course.goal, SizeLimit):
        record["goal_bytes"] = course.goal.size_bytes
    if isinstance(course.forecast, Forecast):
        record["forecast"] = _forecast(course.forecast)
    return record


def _forecast(forecast: Forecast) -> Record:
    figures = {name: value if isinstance(value, str) else _finite(value) for name, value in asdict(forecast.validation).items()}
    columns = zip(forecast.measured, forecast.standard_error, forecast.predicted, forecast.low, forecast.high, strict=True)
    names = ("measured_nats_per_token", "standard_error", "predicted_nats_per_token", "low", "high")
    return figures | {"plans": [dict(zip(names, map(float, plan), strict=True)) for plan in columns]}


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
