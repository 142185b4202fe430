"""Plan of a fit: the best candidate by measurement, with the steps and the structure that were asked for where they measure better."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bitwright.pipeline.finishing.steps import moving
from bitwright.pipeline.loaded_run import LoadedRun
from bitwright.pipeline.offered_steps import offer_steps
from bitwright.pipeline.plan_request import request_plan
from bitwright.pipeline.planning.cost_limits import Conditions
from bitwright.pipeline.planning.costs import limits_of
from bitwright.pipeline.planning.held_out import CandidateScores, judge, measure
from bitwright.pipeline.planning.size_limits import BudgetOrMemory, Original, counted_space
from bitwright.pipeline.reporting.run_summary import summarise
from bitwright.pipeline.run import Run
from bitwright.pipeline.searching.run_search import search_budget
from bitwright.pipeline.searching.search import Search
from bitwright.pipeline.structured_fit import Alone, Offer, offer_structure
from bitwright.report import RunSummary, StepNote, StructureNote
from bitwright.search import solve
from bitwright.spaces import Choice, Plan


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
    start = nearest_beyond(run, limit, conditions) if structure else None
    if start is not None:
        return _structured_alone(loaded, run, limit, conditions, start)
    request = request_plan(run, limit, conditions, objectives=by.objectives, method=by.method.name, as_published=by.as_published)
    search_budget(loaded, request.run, budget_bits=8 * request.size_bytes, search=by, limits=request.limits)
    judgement = judge(loaded, run, request.candidates, by.objectives, device=conditions.device)
    values = judgement.first_values()
    found = FoundPlan(request.plan(values), judgement, partial(request.summary, values))
    if steps:
        plan, notes = offer_steps(loaded, request, steps)
        return replace(found, plan=plan, steps=notes)
    if structure:
        offer = Offer(request.run, limit, request.size_bytes, conditions)
        plan, note = offer_structure(loaded, offer, Alone(*request.best(values), found.plan))
        return replace(found, plan=plan, structure=note)
    return found


def nearest_beyond(run: Run, limit: BudgetOrMemory, conditions: Conditions) -> Choice | None:
    """Return the choice of formats alone that comes nearest to limits beyond all of them, which parts taken away may reach: the smallest, or of those
    within the size limit the one that costs least; None where formats alone are within the limits.

    Raises:
        UserError: a cost cannot be computed for the run.
    """
    served, size_bytes = counted_space(run.space, limit, _original(run))
    if served.total_bytes(served.smallest()) > size_bytes:
        return served.smallest()
    for ceiling in limits_of(run, conditions):
        least = solve(served, np.where(served.offered, ceiling.cost.table, 0.0), 8 * size_bytes).choice
        if not ceiling.keeps(least):
            return least
    return None


def _structured_alone(loaded: LoadedRun, run: Run, limit: BudgetOrMemory, conditions: Conditions, start: Choice) -> FoundPlan:
    """Return the best plan with a structure for limits that no formats alone are within; the nearest of these is `start`."""
    _, size_bytes = counted_space(run.space, limit, _original(run))
    measure(loaded, run, [start])
    alone = Alone(start, run.measurements[tuple(start.tolist())], None)
    plan, note = offer_structure(loaded, Offer(run, limit, size_bytes, conditions), alone)
    name = "nearest of formats alone" if conditions.at_most else "smallest"
    summarised = partial(summarise, run, named={name: start}, chosen=name, limit=None, costs=(), device=None)
    return FoundPlan(plan, CandidateScores((), ()), summarised, structure=note)


def _original(run: Run) -> Original:
    return Original(run.settings.model, run.settings.target, run.original_bytes)
