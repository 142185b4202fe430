"""Plan of a fit: the best candidate by measurement, with the steps and the structure that were asked for where they measure better."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from bitwright.pipeline.finishing.steps import moving
from bitwright.pipeline.loaded_run import LoadedRun
from bitwright.pipeline.offered_steps import offer_steps
from bitwright.pipeline.plan_request import request_plan
from bitwright.pipeline.planning.cost_limits import Conditions
from bitwright.pipeline.planning.held_out import CandidateScores, judge, measure
from bitwright.pipeline.planning.size_limits import BudgetOrMemory, Original, counted_space
from bitwright.pipeline.reporting.run_summary import summarise
from bitwright.pipeline.run import Run
from bitwright.pipeline.searching.run_search import search_budget
from bitwright.pipeline.searching.search import Search
from bitwright.pipeline.structured_fit import Alone, offer_structure
from bitwright.report import RunSummary, StepNote, StructureNote
from bitwright.spaces import Plan


@dataclass(frozen=True, eq=False)
class FoundPlan:
    """Plan of a fit, the candidates' values in every named objective, and how the structure and the steps that were offered measured."""

    plan: Plan
    judgement: CandidateScores
    summarised: Callable[[], RunSummary]
    structure: StructureNote | None = None
    steps: tuple[StepNote, ...] = ()

    def summary(self) -> RunSummary:
        """Return the summary of the run with the costs of all stages so far."""
        return replace(self.summarised(), structure=self.structure, steps=self.steps)


def find_plan(loaded: LoadedRun, run: Run, limit: BudgetOrMemory, conditions: Conditions, by: Search) -> FoundPlan:
    """Search for the best plan within the limit, measure its candidates on held-out text, and offer the run's steps and structure beside it.

    Raises:
        UserError: no choice is within the limits.
    """
    steps, structure = moving(loaded.settings.steps), loaded.settings.taken
    if structure and _is_too_small(run, limit):
        return _structured_alone(loaded, run, limit)
    request = request_plan(run, limit, conditions, objectives=by.objectives, method=by.method.name, as_published=by.as_published)
    search_budget(loaded, request.run, budget_bits=8 * request.size_bytes, search=by, limits=request.limits)
    judgement = judge(loaded, run, request.candidates, by.objectives, device=conditions.device)
    values = judgement.first_values()
    found = FoundPlan(request.plan(values), judgement, partial(request.summary, values))
    if steps:
        plan, notes = offer_steps(loaded, request, steps)
        return replace(found, plan=plan, steps=notes)
    if structure:
        plan, note = offer_structure(loaded, request.run, limit, request.size_bytes, Alone(*request.best(values), found.plan))
        return replace(found, plan=plan, structure=note)
    return found


def _is_too_small(run: Run, limit: BudgetOrMemory) -> bool:
    """Return whether a limit is below the smallest file of formats alone, or that and its cache, which parts taken away may reach."""
    served, size_bytes = counted_space(run.space, limit, _original(run))
    return served.total_bytes(served.smallest()) > size_bytes


def _structured_alone(loaded: LoadedRun, run: Run, limit: BudgetOrMemory) -> FoundPlan:
    """Return the best plan with a structure for a limit that no formats alone are within."""
    served, size_bytes = counted_space(run.space, limit, _original(run))
    smallest = served.smallest()
    measure(loaded, run, [smallest])
    plan, note = offer_structure(loaded, run, limit, size_bytes, Alone(smallest, run.measurements[tuple(smallest.tolist())], None))
    summarised = partial(summarise, run, named={"smallest": smallest}, chosen="smallest", limit=None, costs=(), device=None)
    return FoundPlan(plan, CandidateScores((), ()), summarised, structure=note)


def _original(run: Run) -> Original:
    return Original(run.settings.model, run.settings.target, run.original_bytes)
