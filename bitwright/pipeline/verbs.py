"""The verbs of the command line as plain functions. Each works on the run folder that the one before it left."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path

import numpy as np

from bitwright.compress import context_length, load
from bitwright.devices import Device
from bitwright.engines import N_CONTEXTS, Check, check, model_as_held, prefixes
from bitwright.errors import RunError, UserError
from bitwright.objectives import Cost, CostObjective, NamedObjective, Shape, sample_texts
from bitwright.pipeline.before_loading import require_fittable, require_searchable
from bitwright.pipeline.building import build, require_fit, target_of
from bitwright.pipeline.candidates import best, candidates, make_plan, own_candidate, write_text
from bitwright.pipeline.cost_limits import NO_CONDITIONS, NO_DEVICE, Conditions, Limit, NoDevice
from bitwright.pipeline.costs import limits_of, named_costs
from bitwright.pipeline.held_out import Judgement, judge, measure, measure_candidates
from bitwright.pipeline.origins import origin
from bitwright.pipeline.results import PLAN_KIND, REPORT_KIND, of_fit, of_plan, require_run_folder
from bitwright.pipeline.run import PLAN, REPORT, Run
from bitwright.pipeline.run_lock import working_in
from bitwright.pipeline.run_search import DEFAULT, Search, search_along, search_within
from bitwright.pipeline.run_space import front_points, original_bytes, price, uniforms, whole_space, with_cache_units
from bitwright.pipeline.run_summary import summarise
from bitwright.pipeline.settings import Settings
from bitwright.pipeline.size_limits import Bound, Original, Within, as_file, bound_space, bounded, require_needed
from bitwright.pipeline.workbench import Workbench, require_device, set_up, timed
from bitwright.progress import Progress, Silent
from bitwright.ranges import POINTS
from bitwright.report import NoLimit, RunSummary, SizeLimit, write_page
from bitwright.search import solve
from bitwright.spaces import Choice, Plan, file_bytes
from bitwright.written_files import require_replaceable

_CHECKED_TOKENS = 64


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` leaves: the plan, the model built, how it did in the engine, and the run's figures. `report` is the page, and `judgement` what the
    candidates are worth in every objective that was named.
    """

    plan: Plan
    model: Path
    check: Check
    summary: RunSummary
    report: Path
    judgement: Judgement


def search(settings: Settings, out: Path, *, n_points: int = 6, by: Search = DEFAULT, device: str = "cpu", progress: Progress | None = None) -> Run:
    """Measure sensitivities, search the whole front, and measure `n_points` of it and the uniform allocations on held-out text.

    A search that was interrupted goes on where it was. Raises `UserError` for whatever of the settings cannot be used.
    """
    POINTS.require(n_points)
    require_run_folder(settings, out, {REPORT: REPORT_KIND})
    require_searchable(settings, out, by=by, conditions=NO_CONDITIONS, device=device)
    with working_in(out):
        bench = set_up(_as_the_method_wants(settings, by), out, device=device, progress=progress or Silent())
        run = price(bench)
        search_along(bench, as_file(run), n_points=n_points, search=by)
        points = {f"front {i + 1}": point for i, point in enumerate(front_points(as_file(run), n_points))}
        measure(bench, run, [*points.values(), *uniforms(run).values()])
        write_page(describe(run), out / REPORT)
        return run


def describe(run: Run, costs: Iterable[CostObjective] = (), *, device: Device | NoDevice = NO_DEVICE) -> RunSummary:
    """The figures of a run without a budget: all that was measured, with the middle point of the measured front as the one looked at closely, and the
    front on three axes for each of `costs`.

    Raises:
        RunError: nothing was measured yet.
        UserError: a cost cannot be counted for the run.
    """
    known = {name: choice for name, choice in uniforms(run).items() if _is_measured(run, choice)}
    uniform = {tuple(choice.tolist()) for choice in known.values()}
    points = sorted(
        (m.choice for m in run.measurements.values() if m.choice not in uniform), key=lambda choice: file_bytes(run.prices.space, np.array(choice))
    )
    named = {f"front {i + 1}": np.array(choice) for i, choice in enumerate(points)}
    if not named | known:
        raise RunError(f"A run must be finished before it is used; nothing was measured in {run.folder} yet: run `bitwright search` again.")
    axes = named_costs(run, costs, device)
    return summarise(run, named=named | known, chosen=_middle(named or known), limit=NoLimit(), costs=axes, device=device)


def _middle(named: dict[str, Choice]) -> str:
    return list(named)[len(named) // 2]


def write_plan(made: Plan, path: Path) -> tuple[Path, ...]:
    """Write a plan, and beside it, where it is for llama.cpp, the same as lines for `llama-quantize --tensor-type-file`: the files written.

    Raises:
        OutputError: one cannot be written, or what is there is not an earlier plan of Bitwright's.
    """
    files = of_plan(path, made.target)
    for file, kind in files.items():
        require_replaceable(file, kind)
    for file, kind in files.items():
        write_text(file, made.to_json() if kind == PLAN_KIND else made.to_tensor_types(), kind=kind)
    return tuple(files)


def plan(
    run: Run,
    limit: Within,
    *,
    conditions: Conditions = NO_CONDITIONS,
    ship_codec: str = "",
    steps: Sequence[str] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[Plan, RunSummary]:
    """The best plan within a budget or a memory, and within the ceilings of `conditions`. Candidates that the run has not measured yet are measured
    now, which loads the model.

    `ship_codec` is the rounding of what is written and `steps` what follows it, those of the run's settings where they are empty.

    Raises:
        BudgetError: nothing is that small, or the original is smaller, or no choice is within the ceilings.
        UserError: a cost cannot be counted, the rounding is none of the target's, a step cannot be taken, or types of the cache were not measured.
    """
    ships = replace(run, settings=replace(run.settings, ship_codec=ship_codec or run.settings.ship_codec, steps=tuple(steps) or run.settings.steps))
    asked = _asked(bounded(ships, limit), conditions, ())
    named = asked.candidates
    if not all(_is_measured(ships, choice) for choice in named.values()):
        with working_in(run.folder):
            bench = set_up(run.settings, run.folder, device=device, progress=progress or Silent())
            measure_candidates(bench, ships, list(named.values()))
    return asked.plan({}), asked.figures({})


def fit(
    settings: Settings,
    limit: Within,
    out: Path,
    *,
    conditions: Conditions = NO_CONDITIONS,
    by: Search = DEFAULT,
    engine_python: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
) -> Fitted:
    """From a model and a budget, or a memory, with ceilings beside it, to a checked file in `out`: search around it, plan, build, check, report.

    `engine_python` is as for `verify`.
    """
    progress = progress or Silent()
    _require_budget_alone(conditions)
    settings = _as_the_method_wants(settings, by)
    _require_one_judge(settings, by)
    require_run_folder(settings, out, of_fit(settings.target))
    require_fittable(settings, out, limit=limit, by=by, conditions=conditions, engine_python=engine_python, device=device)
    with working_in(out):
        bench = set_up(settings, out, device=device, progress=progress)
        _require_possible(bench, limit)
        run = price(bench)
        asked = replace(_asked(bounded(run, limit), conditions, by.objectives), method=by.method.name, as_published=by.as_published)
        search_within(bench, asked.bound.run, budget_bits=8 * asked.bound.size_bytes, search=by, limits=asked.limits)
        named = asked.candidates
        judgement = judge(bench, run, named, by.objectives, device=conditions.device)
        found = asked.plan(judgement.deciding())
        write_plan(found, out / PLAN)
        path = out / bench.engine.file_name
        with timed(run.store, "build"):
            build(found, path, progress=progress)
        with timed(run.store, "check"):
            checked = _checked(bench, found, path, engine_python)
        summary = asked.figures(judgement.deciding())
        write_page(summary, out / REPORT)
        return Fitted(found, path, checked, summary, out / REPORT, judgement)


def verify(plan: Plan, path: Path, *, engine_python: str = "", device: str = "cpu", progress: Progress | None = None) -> Check:
    """Check a built file against its plan, on contexts that the model writes itself.

    A plan for vLLM is run in it by `engine_python`, the Python of an environment that has it; by this one where it is empty and has it.

    Raises:
        UserError: the model, the plan or the file cannot be used.
    """
    progress = progress or Silent()
    require_device(device)
    target, whole = target_of(plan), load(plan.model.source, device)
    model = model_as_held(whole, target)
    require_fit(plan, model.source)
    length = min(_CHECKED_TOKENS, context_length(model.source) or _CHECKED_TOKENS)
    texts = sample_texts(model, Shape(0, N_CONTEXTS, length), seed=plan.found.seed + 1, progress=progress)
    return check(model, plan, path, contexts=prefixes(texts.held_out.ids, N_CONTEXTS), prompt=PROMPT, engine_python=engine_python, progress=progress)


PROMPT = "The capital of France is"


def _as_the_method_wants(settings: Settings, by: Search) -> Settings:
    """The settings with the steps that the method has follow, where they name none, and as published with the sensitivity that it needs, where they
    leave that at the default.
    """
    needed = by.method.sensitivity if by.as_published and settings.sensitivity == Settings.sensitivity else ""
    return replace(settings, steps=settings.steps or by.method.steps, sensitivity=needed or settings.sensitivity)


def _is_measured(run: Run, choice: Choice) -> bool:
    known = [run.measurements, run.shipped] if run.settings.ships_anew else [run.measurements]
    return all(tuple(choice.tolist()) in measured for measured in known)


def _require_one_judge(settings: Settings, by: Search) -> None:
    if settings.ships_anew and by.objectives:
        raise UserError(
            f"What ships with another codec or with steps is chosen by its divergence; {by.objectives[0].name} cannot choose it too: leave out "
            "--objectives, or --ship-codec and --step."
        )


def _require_possible(bench: Workbench, limit: Within) -> None:
    """Refuse a limit that the original meets before any text is read, and one that nothing meets before anything is quantized."""
    original = Original(bench.settings.model, bench.settings.target, original_bytes(bench))
    require_needed(limit, original, n_weights=sum(tensor.n_weights for tensor in bench.model.tensors))
    space = with_cache_units(bench, whole_space(bench))
    served, size_bytes = bound_space(space, limit, original)
    solve(served, np.zeros(served.offered.shape), 8 * size_bytes)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a plan stays within: a bound on bytes, and limits beside it. `costs` are told, those of the limits among them. `method` is the search that
    was asked for, whose own plan alone is a candidate `as_published`.
    """

    bound: Bound
    limits: tuple[Limit, ...]
    costs: tuple[Cost, ...]
    device: Device | NoDevice
    method: str = ""
    as_published: bool = False

    @cached_property
    def candidates(self) -> dict[str, Choice]:
        """See `candidates`; to be asked for when the search is over."""
        if self.as_published:
            return own_candidate(self.bound.run, self.bound.size_bytes, self.limits, method=self.method)
        return candidates(self.bound.run, self.bound.size_bytes, self.limits, method=self.method)

    def plan(self, values: Mapping[str, float]) -> Plan:
        """The best of the measured candidates by `values`, or by divergence where there are none."""
        name, measurement = best(self.bound.run, self.candidates, values)
        text = ", ".join([self.bound.text, *(limit.text for limit in self.limits)])
        by = origin(self.bound.run, name, self.candidates[name], self.method)
        return make_plan(self.bound.run, budget=text, strategy=name, measurement=measurement, cache=self.bound.cache, by=by)

    def figures(self, values: Mapping[str, float]) -> RunSummary:
        """The same as figures."""
        named = self.candidates
        chosen = best(self.bound.run, named, values)[0]
        limit = SizeLimit(self.bound.file_bytes(named[chosen]))
        return summarise(self.bound.run, named=named, chosen=chosen, limit=limit, costs=self.costs, device=self.device)


def _asked(bound: Bound, conditions: Conditions, objectives: Iterable[NamedObjective]) -> _Asked:
    _require_budget_alone(conditions)
    limits = limits_of(bound.run, conditions)
    limited = [limit.cost.objective for limit in limits]
    told = [cost for cost in objectives if isinstance(cost, CostObjective) and cost not in (*limited, CostObjective.BYTES, CostObjective.BITS)]
    costs = (*(limit.cost for limit in limits), *named_costs(bound.run, told, conditions.device))
    return _Asked(bound, limits, costs, conditions.device)


def _require_budget_alone(conditions: Conditions) -> None:
    if conditions.nats_at_most < inf:
        raise UserError(
            f"Under a budget the divergence is made small; kl={conditions.nats_at_most:g} asks for the smallest file instead: leave out the "
            "budget, or use `fit_smallest` or `smallest_plan`."
        )


def _checked(bench: Workbench, plan: Plan, path: Path, engine_python: str) -> Check:
    contexts = prefixes(bench.texts.held_out.ids, N_CONTEXTS)
    return check(bench.model, plan, path, contexts=contexts, prompt=PROMPT, engine_python=engine_python, progress=bench.progress)
