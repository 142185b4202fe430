"""Candidates for a budget, and the plan made of the best measured one: knapsack optima, the best of the searches, uniform allocations."""

import importlib.metadata
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from bitwright.compress import absolute_name
from bitwright.engines import target_named
from bitwright.errors import BudgetError, RunError
from bitwright.objectives import Measurement
from bitwright.pipeline.finishing.shipped_weights import planned_steps, rounding_of
from bitwright.pipeline.planning.cost_limits import CostLimit, require_possible
from bitwright.pipeline.planning.origins import GIVEN, KNAPSACK, Origin, finder, own_best, versions
from bitwright.pipeline.planning.reductions import by_reduction
from bitwright.pipeline.pricing.run_space import largest_uniforms
from bitwright.pipeline.run import IMATRIX, IMATRIX_DIGEST, QUANTIZED, Run
from bitwright.pipeline.settings import OF_MODEL
from bitwright.search import solve_with_rows
from bitwright.spaces import (
    DEFAULT_CACHE,
    Budget,
    CacheTypes,
    Choice,
    ImportanceFile,
    Plan,
    PlannedDivergence,
    PlannedModel,
    Provenance,
    chosen_cache,
    file_bytes,
    has_cache,
    planned_cache,
    weight_space,
    without_cache,
)
from bitwright.written_files import digest

_EXABYTE = 10**18
_SEARCHED_MEASURED = 3


def budget_bytes(budget: Budget, *, n_weights: int, original_bytes: int) -> int:
    """Return the budget in bytes of the finished file, for a model of `n_weights` whose file has `original_bytes`.

    Raises:
        BudgetError: the budget is not below the original's size.
    """
    size_bytes = budget.size_bytes(n_weights)
    if size_bytes >= original_bytes:
        raise BudgetError(
            f"A budget must be below the original; {budget.text} is {_megabytes(size_bytes)} MB and the original has "
            f"{original_bytes / 1e6:.1f} MB, so it fits as it is: name a smaller budget."
        )
    return size_bytes


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f}" if size_bytes < _EXABYTE else f"{size_bytes // 10**6:,}"  # a float ends at 10^308


def candidates(run: Run, size_bytes: int, limits: tuple[CostLimit, ...] = (), *, method: str = "") -> dict[str, Choice]:
    """Return the candidates to measure for a budget and further `limits`, by name: the exact optimum of the table and of the second table, those of
    bits alone and of bits and one reduction where there are formats that do more than round, the best choices of the searches so far, named by method
    and with the best of `method` among them, and the largest uniform allocations that fit, see `largest_uniforms`.

    Raises:
        BudgetError: even the smallest file is above the budget, or no choice satisfies the limits.
    """
    space, rows = run.space, tuple(limit.row for limit in limits)
    require_possible(space, size_bytes, limits)
    tables = {KNAPSACK: run.table, f"{KNAPSACK}, second table": run.second_table}
    solved = {name: solve_with_rows(space, table, 8 * size_bytes, rows=rows).choice for name, table in tables.items()}
    solved |= by_reduction(space, run.table, size_bytes, rows)
    first = {tuple(choice.tolist()): name for name, choice in reversed(solved.items())}
    found = {name: choice for name, choice in solved.items() if first[tuple(choice.tolist())] == name}
    uniform = largest_uniforms(run, lambda choice: _fits(run, choice, size_bytes, limits))
    searched = _searched(run, size_bytes, limits, method)
    taken = {tuple(choice.tolist()) for choice in (*found.values(), *uniform.values())}
    return found | {name: choice for name, choice in searched.items() if tuple(choice.tolist()) not in taken} | uniform


def own_candidate(run: Run, size_bytes: int, limits: tuple[CostLimit, ...], *, method: str) -> dict[str, Choice]:
    """Return the best fitting choice that a method itself measured, under the method's name; it ships with `--as-published`.

    Raises:
        BudgetError: the method measured no choice that fits.
    """
    return {method: own_best(run, method, lambda choice: _fits(run, choice, size_bytes, limits))}


def _fits(run: Run, choice: Choice, size_bytes: int, limits: tuple[CostLimit, ...]) -> bool:
    return run.space.total_bytes(choice) <= size_bytes and all(limit.keeps(choice) for limit in limits)


def _searched(run: Run, size_bytes: int, limits: tuple[CostLimit, ...], method: str) -> dict[str, Choice]:
    """Return the best fitting choices among those that searches measured, and the best of the searches of `method`."""
    nats = {choice: value for choice, value in run.evaluated().items() if _fits(run, np.array(choice), size_bytes, limits)}
    best_first = [np.array(choice) for choice in sorted(nats, key=lambda choice: nats[choice])[:_SEARCHED_MEASURED]]
    with suppress(BudgetError):
        own = own_best(run, method, lambda choice: _fits(run, choice, size_bytes, limits))
        if not any((own == choice).all() for choice in best_first):
            best_first.append(own)
    return {f"{finder(run, choice) or 'search'} {i}": choice for i, choice in enumerate(best_first, start=1)}


def best(run: Run, named: Mapping[str, Choice], values: Mapping[str, float]) -> tuple[str, Measurement]:
    """Return the candidate with the smallest value and its measurement as it ships; ties go to the smaller file.

    `values` holds all candidates or none; if it is empty, candidates are compared by divergence.
    """
    known = run.measurements | run.shipped
    measured = {name: known[tuple(choice.tolist())] for name, choice in named.items()}
    space = run.space
    ranked = sorted(named, key=lambda name: (values.get(name, measured[name].nats_per_token), space.total_bytes(named[name])))
    return ranked[0], measured[ranked[0]]


def make_plan(run: Run, *, budget: str, strategy: str, measurement: Measurement, cache: CacheTypes = DEFAULT_CACHE, by: Origin = GIVEN) -> Plan:
    """Return the measured choice as a plan with origin `by`. `cache` gives the KV cache types if the run does not choose them."""
    promise = PlannedDivergence(
        nats_per_token=measurement.nats_per_token,
        standard_error=measurement.standard_error,
        basis="measured",
        text=run.store.text("held-out text"),
        n_tokens=measurement.n_tokens,
    )
    return promised_plan(run, np.array(measurement.choice), promise, budget=budget, strategy=strategy, cache=cache, by=by)


def promised_plan(
    run: Run, choice: Choice, promise: PlannedDivergence, *, budget: str, strategy: str, cache: CacheTypes = DEFAULT_CACHE, by: Origin = GIVEN
) -> Plan:
    """Return a choice `(n_units,)` as a plan with the divergence `promise`, measured or predicted; see `make_plan`."""
    space, settings = run.space, run.settings
    formats = weight_space(space).names(without_cache(space, choice))
    types = chosen_cache(space, choice) if has_cache(space) else cache
    target = target_named(settings.target)
    imatrix = run.folder / IMATRIX
    return Plan(
        target=target.name,
        target_version=target.version,
        model=_planned_model(run),
        formats=formats,
        size_bytes=file_bytes(space, choice),
        split_max_bytes=settings.split_max_bytes,
        divergence=promise,
        cache=planned_cache(types),
        importance=ImportanceFile(path=str(imatrix.absolute()), sha256=_importance_digest(run)),
        rounding=rounding_of(run, formats),
        steps=planned_steps(run, formats),
        found=Provenance(
            bitwright=importlib.metadata.version("bitwright"),
            strategy=strategy,
            sensitivity=settings.sensitivity,
            calibration=run.store.text("calibration text"),
            seed=settings.seed,
            budget=budget,
            won=by.won,
            method=by.method,
            effort=by.effort,
            objectives=by.objectives,
            held_out=run.store.text("held-out text"),
            versions=versions(),
        ),
    )


def _planned_model(run: Run) -> PlannedModel:
    known = run.store.settings()
    settings = {name.removeprefix(OF_MODEL): value for name, value in known.items() if name.startswith(OF_MODEL)}
    source = absolute_name(run.settings.model)
    quantized = run.store.text(QUANTIZED) if run.store.has_text(QUANTIZED) else ""
    return PlannedModel(source=source, fingerprint=known["model"], settings=settings, n_weights=run.space.n_weights, quantized=quantized)


def _importance_digest(run: Run) -> str:
    """Return the SHA-256 of the importance matrix that the run quantized with.

    Raises:
        RunError: the file has changed or is gone.
    """
    path, kept = run.folder / IMATRIX, run.store.text(IMATRIX_DIGEST)
    if not path.is_file() or digest(path) != kept:
        raise RunError(
            f"A plan needs the importance matrix that its run quantized with; {path} has changed since or is gone: put it back, or let "
            "`bitwright search` collect it again."
        )
    return kept
