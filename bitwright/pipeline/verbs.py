"""Commands as plain functions: search, describe, plan, fit, verify. Each works on the run folder of the one before it."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np

from bitwright.compress import Room, load, open_headers
from bitwright.devices import Device
from bitwright.engines import N_CONTEXTS, N_TEXTS, Check, check, engine_named, model_as_held, prefixes
from bitwright.errors import RunError, UserError
from bitwright.objectives import CostObjective, Shape, sample_texts
from bitwright.pipeline.before_loading import require_fittable, require_movable, require_routers, require_searchable
from bitwright.pipeline.finishing.building import build, importance_of, require_fit, target_of
from bitwright.pipeline.finishing.planned_structure import model_of
from bitwright.pipeline.finishing.steps import moving
from bitwright.pipeline.fit_plan import find_plan
from bitwright.pipeline.loaded_run import LoadedRun, require_device, set_up, timed
from bitwright.pipeline.offered_steps import offer_steps, without_moving
from bitwright.pipeline.plan_request import request_plan
from bitwright.pipeline.planning.cost_limits import NO_CONDITIONS, Conditions
from bitwright.pipeline.planning.costs import named_costs
from bitwright.pipeline.planning.held_out import CandidateScores, measure, measure_candidates
from bitwright.pipeline.planning.size_limits import BudgetOrMemory, Original, bound_space, require_needed, with_finest_cache
from bitwright.pipeline.pricing.run_space import front_points, original_bytes, price, uniforms, whole_space, with_cache_units
from bitwright.pipeline.reporting.run_summary import summarise
from bitwright.pipeline.results import PLAN_KIND, REPORT_KIND, fit_results, plan_results, require_run_folder
from bitwright.pipeline.run import PLAN, REPORT, Run
from bitwright.pipeline.run_lock import working_in
from bitwright.pipeline.searching.run_search import search_front
from bitwright.pipeline.searching.search import DEFAULT, Search
from bitwright.pipeline.settings import Settings
from bitwright.pipeline.workers.cluster import Cluster
from bitwright.pipeline.workers.opening import workers_on
from bitwright.progress import Progress, Silent
from bitwright.ranges import POINTS
from bitwright.report import RunSummary, write_page
from bitwright.search import solve
from bitwright.spaces import Budget, Choice, Plan, file_bytes
from bitwright.written_files import publish_text, require_replaceable

PROMPT = "The capital of France is"
_CHECKED_TOKENS = 64


@dataclass(frozen=True, eq=False)
class Fitted:
    """Result of `fit`: the plan, the path of the built model, its check in the engine, the run's summary, the path of the report, and the candidates'
    values in every named objective.
    """

    plan: Plan
    model: Path
    check: Check
    summary: RunSummary
    report: Path
    judgement: CandidateScores


def search(
    settings: Settings,
    out: Path,
    *,
    n_points: int = 6,
    by: Search = DEFAULT,
    device: str = "cpu",
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> Run:
    """Measure sensitivities, search the whole front, and measure `n_points` of it and the uniform allocations on held-out text. An interrupted search
    is continued. Workers on a `cluster` share the work.

    Raises:
        UserError: a setting cannot be used.
    """
    POINTS.require(n_points)
    if settings.taken:
        raise UserError("Structure is chosen by fit for one budget or memory, not for a front or a ceiling on the divergence: leave --structure out.")
    settings = _as_the_method_wants(settings, by)
    require_run_folder(settings, out, {REPORT: REPORT_KIND})
    require_searchable(settings, out, by=by, conditions=NO_CONDITIONS, device=device, progress=progress)
    progress = progress or Silent()
    with working_in(out), workers_on(cluster, settings, out, device=device, progress=progress) as workers:
        loaded = set_up(settings, out, device=device, progress=progress, workers=workers)
        run = without_moving(price(loaded))
        search_front(loaded, with_finest_cache(run), n_points=n_points, search=by)
        points = {f"front {i + 1}": point for i, point in enumerate(front_points(with_finest_cache(run), n_points))}
        measure(loaded, run, [*points.values(), *uniforms(run).values()])
        write_page(describe(run), out / REPORT)
        return run


def describe(run: Run, costs: Iterable[CostObjective] = (), *, device: Device | None = None) -> RunSummary:
    """Return the summary of a run without a budget: all measurements, with the middle point of the measured front as the selected one, and the front
    over size, cost and divergence for each of `costs`.

    Raises:
        RunError: nothing was measured yet.
        UserError: a cost cannot be computed for the run.
    """
    run = without_moving(run)
    known = {name: choice for name, choice in uniforms(run).items() if _is_measured(run, choice)}
    uniform = {tuple(choice.tolist()) for choice in known.values()}
    points = sorted(
        (m.choice for m in run.measurements.values() if m.choice not in uniform), key=lambda choice: file_bytes(run.space, np.array(choice))
    )
    named = {f"front {i + 1}": np.array(choice) for i, choice in enumerate(points)}
    if not named | known:
        raise RunError(f"A run must be finished before it is used; nothing was measured in {run.folder} yet: run `bitwright search` again.")
    axes = named_costs(run, costs, device)
    return summarise(run, named=named | known, chosen=_middle(named or known), limit=None, costs=axes, device=device)


def _middle(named: dict[str, Choice]) -> str:
    return list(named)[len(named) // 2]


def write_plan(made: Plan, path: Path) -> tuple[Path, ...]:
    """Write a plan, and for llama.cpp a file for `llama-quantize --tensor-type-file` beside it; return the paths of the files.

    Raises:
        OutputError: a file cannot be written, or would replace a file that is not an earlier plan of Bitwright's.
    """
    files = plan_results(path, made.target)
    for file, kind in files.items():
        require_replaceable(file, kind)
    for file, kind in files.items():
        publish_text(file, made.to_json() if kind == PLAN_KIND else made.to_tensor_types(), kind=kind)
    return tuple(files)


def plan(
    run: Run,
    limit: BudgetOrMemory,
    *,
    conditions: Conditions = NO_CONDITIONS,
    ship_codec: str = "",
    steps: Sequence[str] = (),
    device: str = "cpu",
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> tuple[Plan, RunSummary]:
    """Return the best plan within a budget or memory limit and the ceilings of `conditions`, and its summary. Candidates that the run has not
    measured yet are measured now, which loads the model.

    `ship_codec` is the rounding of the written model and `steps` the steps after it; empty ones are those of the run's settings. Workers on a
    `cluster` share the measuring.

    Raises:
        BudgetError: no choice is that small, the original already is, or no choice satisfies the ceilings.
        UserError: a cost cannot be computed, the target does not have the rounding, a step cannot be applied, or cache types were not measured.
    """
    shipping = replace(
        run, settings=replace(run.settings, ship_codec=ship_codec or run.settings.ship_codec, steps=tuple(steps) or run.settings.steps)
    )
    if steps:
        outline = open_headers(run.settings.model, run.settings.engine.view)
        require_routers(outline, (), steps)
        require_movable(run.settings.engine, outline, steps)
    _require_budget_alone(conditions)
    moved, compared = moving(shipping.settings.steps), without_moving(shipping)
    request = request_plan(compared, limit, conditions)
    named = request.candidates
    if not moved and all(_is_measured(compared, choice) for choice in named.values()):
        return request.plan({}), request.summary({})
    progress = progress or Silent()
    with working_in(run.folder), workers_on(cluster, run.settings, run.folder, device=device, progress=progress) as workers:
        loaded = set_up(run.settings, run.folder, device=device, progress=progress, workers=workers)
        measure_candidates(loaded, compared, list(named.values()))
        made, notes = offer_steps(loaded, request, moved)
    return made, replace(request.summary({}), steps=notes)


def fit(
    settings: Settings,
    limit: BudgetOrMemory,
    out: Path,
    *,
    conditions: Conditions = NO_CONDITIONS,
    by: Search = DEFAULT,
    engine_python: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> Fitted:
    """Search a model for a budget or memory limit and ceilings beside it, then plan, build, check and report in the folder `out`.

    `engine_python` is as for `verify`. Workers on a `cluster` share the work.

    Raises:
        UserError: a setting cannot be used, or no choice is within the limits.
        BrokenPromiseError: the built file is not what its plan says.
    """
    progress = progress or Silent()
    _require_budget_alone(conditions)
    settings = _as_the_method_wants(settings, by)
    _require_one_judge(settings, by)
    require_run_folder(settings, out, fit_results(settings.target, out))
    require_fittable(settings, out, limit=limit, by=by, conditions=conditions, engine_python=engine_python, device=device, progress=progress)
    with working_in(out), workers_on(cluster, settings, out, device=device, progress=progress) as workers:
        loaded = set_up(settings, out, device=device, progress=progress, workers=workers)
        run = without_moving(price(loaded, _least_bytes(loaded, limit, by, conditions)))
        found = find_plan(loaded, run, limit, conditions, by)
        plan, shipped = found.plan, loaded if found.plan.structure is None else loaded.reordered
        write_plan(plan, out / PLAN)
        with timed(run.store, "build"):
            path = build(plan, out / loaded.engine.file_name, progress=progress)
        with timed(run.store, "check"):
            checked = _checked(shipped, plan, path, engine_python)
        for searched in (loaded, loaded.reordered):
            searched.levels.keep(plan.formats)
        summary = found.summary()  # at the end: it has the costs of all stages
        write_page(summary, out / REPORT)
        return Fitted(plan, path, checked, summary, out / REPORT, found.judgement)


def verify(plan: Plan, path: Path, *, engine_python: str = "", device: str = "cpu", progress: Progress | None = None) -> Check:
    """Check a built file against its plan, on contexts sampled from the model.

    A plan for vLLM is run by `engine_python`, the Python of an environment with vLLM; if that is empty, by this Python.

    Raises:
        UserError: the model, the plan or the file cannot be used.
    """
    progress = progress or Silent()
    require_device(device)
    target, whole = target_of(plan), load(plan.model.source, device, view=engine_named(plan.target).view, room=Room(Path(tempfile.gettempdir())))
    model = model_as_held(whole, target)
    require_fit(plan, model.source)
    if plan.structure is not None:
        model = model_of(plan, model, importance_of(plan, whole.source))
    length = min(_CHECKED_TOKENS, model.source.context_length or _CHECKED_TOKENS)
    texts = sample_texts(model, Shape(0, N_TEXTS, length), seed=plan.found.seed + 1, progress=progress)
    return check(model, plan, path, contexts=prefixes(texts.held_out.ids, N_CONTEXTS), prompt=PROMPT, engine_python=engine_python, progress=progress)


def _as_the_method_wants(settings: Settings, by: Search) -> Settings:
    """Return the settings with the method's steps if they name none, and `as_published` with the method's sensitivity if theirs is the default."""
    needed = by.method.sensitivity if by.as_published and settings.sensitivity == Settings.sensitivity else ""
    return replace(settings, steps=settings.steps or by.method.steps, sensitivity=needed or settings.sensitivity)


def _is_measured(run: Run, choice: Choice) -> bool:
    known = [run.measurements, run.shipped] if run.settings.remeasures else [run.measurements]
    return all(tuple(choice.tolist()) in measured for measured in known)


def _require_one_judge(settings: Settings, by: Search) -> None:
    if settings.remeasures and by.objectives:
        raise UserError(
            f"With another codec to ship or with steps, the plan is chosen by its divergence; {by.objectives[0].name} cannot choose it too: leave "
            "out --objectives, or --ship-codec and --step."
        )


def _least_bytes(loaded: LoadedRun, limit: BudgetOrMemory, by: Search, conditions: Conditions) -> int:
    """Return the bytes of the file that is asked for, 0 where other limits may ask for less, or a method has its own prices.

    Raises:
        BudgetError: the original is within the limit or no choice is; no text is read or tensor quantized before.
    """
    size_bytes = _require_possible(loaded, limit)
    is_alone = isinstance(limit, Budget) and conditions == NO_CONDITIONS and not loaded.settings.taken and not by.as_published
    return size_bytes if is_alone else 0


def _require_possible(loaded: LoadedRun, limit: BudgetOrMemory) -> int:
    """Raise if the original is within the limit or no choice is, before any text is read or tensor quantized; return the bytes of the limit."""
    original = Original(loaded.settings.model, loaded.settings.target, original_bytes(loaded))
    require_needed(limit, original, n_weights=sum(tensor.n_weights for tensor in loaded.model.tensors))
    space = with_cache_units(loaded, whole_space(loaded))
    if loaded.settings.taken:
        return 0  # parts taken away reach below the smallest file of formats
    served, size_bytes = bound_space(space, limit, original)
    solve(served, np.zeros(served.offered.shape), 8 * size_bytes)
    return size_bytes


def _require_budget_alone(conditions: Conditions) -> None:
    if conditions.nats_at_most < inf:
        raise UserError(
            f"Under a budget, the divergence is minimised; kl={conditions.nats_at_most:g} asks for the smallest file instead: leave out the "
            "budget, or use `fit_smallest` or `smallest_plan`."
        )


def _checked(loaded: LoadedRun, plan: Plan, path: Path, engine_python: str) -> Check:
    contexts = prefixes(loaded.texts.held_out.ids, N_CONTEXTS)
    return check(loaded.model, plan, path, contexts=contexts, prompt=PROMPT, engine_python=engine_python, progress=loaded.progress)
