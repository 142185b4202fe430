"""Smallest plan whose divergence is within a ceiling.

The divergence of the exact optimum falls with the budget, and so does its prediction from the run's measurements. Bisection finds the smallest budget
whose predicted divergence is within the ceiling, and its plan is measured. If that is above the ceiling, the target of the prediction is lowered by
the same ratio, and the bisection repeated.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import inf
from pathlib import Path

from bitwright.engines import engine_named
from bitwright.errors import BudgetError, UserError
from bitwright.pipeline.before_loading import require_writable_for
from bitwright.pipeline.finishing.building import build
from bitwright.pipeline.loaded_run import timed
from bitwright.pipeline.planning.cost_limits import Conditions
from bitwright.pipeline.planning.costs import limits_of, require_countable
from bitwright.pipeline.planning.held_out import CandidateScores
from bitwright.pipeline.planning.size_limits import bounded
from bitwright.pipeline.pricing.link import link_of
from bitwright.pipeline.results import fit_results, require_run_folder
from bitwright.pipeline.run import PLAN, REPORT, Run
from bitwright.pipeline.run_lock import working_in
from bitwright.pipeline.searching.search import DEFAULT, Search
from bitwright.pipeline.settings import Settings
from bitwright.pipeline.verbs import Fitted, plan, search, verify, write_plan
from bitwright.pipeline.workers.cluster import Cluster
from bitwright.progress import Progress, Silent
from bitwright.report import RunSummary, write_page
from bitwright.search import Row, solve_with_rows
from bitwright.spaces import Budget, Plan

_ROUNDS, _HALVINGS = 5, 14
_SOLVER_SECONDS = 10.0
_MEASURING = ("candidates", "ship")  # stages of the run
_BELOW = 0.98  # margin below the ceiling once a prediction was too low


def smallest_plan(
    run: Run,
    conditions: Conditions,
    *,
    ship_codec: str = "",
    steps: Sequence[str] = (),
    device: str = "cpu",
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> tuple[Plan, RunSummary]:
    """Return the smallest plan found whose measured divergence is at most `conditions.nats_at_most`, within the other ceilings. Candidates that the
    run has not measured yet are measured now, which loads the model; `progress` is told how many tokens that took. See `plan` for the other
    arguments.

    Raises:
        BudgetError: no plan was found in five rounds; the message has the least divergence found.
        UserError: a cost cannot be computed, or no choice satisfies the other ceilings.
    """
    goal, others = conditions.nats_at_most, replace(conditions, nats_at_most=inf)
    counted, _ = bounded(run, Budget("the original", Fraction(run.original_bytes - 1), "b"))  # its sizes are those of the file
    rows, space = tuple(limit.row for limit in limits_of(counted, conditions)), counted.space
    low, high = space.total_bytes(space.smallest()), min(run.original_bytes - 1, space.total_bytes(space.largest()))
    aim, best, progress, n_before = goal, inf, progress or Silent(), _tokens_measured(run)
    for n_budgets in range(1, _ROUNDS + 1):
        size_bytes = _least_budget(counted, rows, aim, low=low, high=high)
        budget = Budget(f"the smallest of at most {goal:g} nats/token", Fraction(size_bytes), "b")
        made, summary = plan(run, budget, conditions=others, ship_codec=ship_codec, steps=steps, device=device, progress=progress, cluster=cluster)
        nats = made.divergence.nats_per_token
        if nats <= goal:
            measured = f"{nats:.4g}, measured; {_tokens_measured(run) - n_before:,} tokens were read for that"
            progress.note(f"At most {goal:g} nats/token: the plan of {made.size_bytes:,} bytes has {measured}, at {n_budgets} sizes.")
            return made, summary
        best, low, aim = min(best, nats), size_bytes, _BELOW * aim * goal / nats
        if size_bytes >= high:
            break
    raise BudgetError(
        f"A ceiling on the divergence must be reached by some plan; within {high / 1e6:,.1f} MB the best that was found has {best:.4g} nats/token, "
        f"and kl={goal:g} is less: raise it."
    )


def fit_smallest(
    settings: Settings,
    conditions: Conditions,
    out: Path,
    *,
    by: Search = DEFAULT,
    engine_python: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> Fitted:
    """Search, plan, build and check the smallest file in `out` whose divergence is within a ceiling; see `smallest_plan`. Without a budget, the whole
    front is searched. The other arguments are as for `fit`.

    Raises:
        BudgetError: see `smallest_plan`.
        UserError: a setting cannot be used, or objectives are named, while the size is what is minimised.
    """
    progress, engine = progress or Silent(), engine_named(settings.target)
    require_writable_for(engine.name, engine_python)
    require_countable((ceiling.objective for ceiling in conditions.at_most), conditions.device, engine.name)
    if by.objectives:
        raise UserError(
            f"Within a ceiling on the divergence, the size is minimised; {by.objectives[0].name} cannot be minimised too: leave out --objectives."
        )
    if by.as_published:
        raise UserError("A method's published plan needs a budget; a ceiling on the divergence is none: leave out --as-published.")
    require_run_folder(settings, out, fit_results(settings.target, out))
    with working_in(out):
        run = search(settings, out, by=by, device=device, progress=progress, cluster=cluster)
        made, summary = smallest_plan(run, conditions, device=device, progress=progress, cluster=cluster)
        write_plan(made, out / PLAN)
        with timed(run.store, "build"):
            path = build(made, out / engine.file_name, progress=progress)
        with timed(run.store, "check"):
            checked = verify(made, path, engine_python=engine_python, device=device, progress=progress)
        write_page(summary, out / REPORT)
        return Fitted(made, path, checked, summary, out / REPORT, CandidateScores((), ()))


def _tokens_measured(run: Run) -> int:
    """Return the number of held-out tokens that candidates of the run were measured on."""
    return sum(n_tokens for name, _, n_tokens, _ in run.store.stages() if name in _MEASURING)


def _least_budget(run: Run, rows: tuple[Row, ...], nats: float, *, low: int, high: int) -> int:
    """Return the least size between `low` and `high` bytes at which the table's optimum has a predicted divergence of at most `nats`, else `high`."""
    predict, space = link_of(run), run.space

    def within(size_bytes: int) -> bool:
        try:
            choice = solve_with_rows(space, run.table, 8 * size_bytes, rows=rows, limit_seconds=_SOLVER_SECONDS).choice
        except UserError:  # no choice of that size satisfies the rows
            return False
        return predict(run.summed(choice)).nats_per_token <= nats

    if within(low):
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return high
