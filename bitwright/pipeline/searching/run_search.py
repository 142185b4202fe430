"""Run a search method on the calibration text of one run. Held-out text is left for measuring its candidates."""

import json
from collections.abc import Callable, Sequence

from bitwright.errors import UserError
from bitwright.methods import AUTO, Method
from bitwright.pipeline.loaded_run import LoadedRun, timed
from bitwright.pipeline.planning.cost_limits import CostLimit, require_possible
from bitwright.pipeline.planning.reductions import by_reduction
from bitwright.pipeline.pricing.run_space import largest_uniforms, uniforms
from bitwright.pipeline.run import SEARCH_TEXT, Run
from bitwright.pipeline.searching.ask_tell_loop import Meter, SearchResult, run_strategy
from bitwright.pipeline.searching.model_problem import STAGE, open_problem
from bitwright.pipeline.searching.search import Search
from bitwright.pipeline.searching.search_history import store_history
from bitwright.report import SizeLimit
from bitwright.search import Problem, Row, Strategy
from bitwright.spaces import DEFAULT_CACHE_TYPE, Choice, Space, has_cache


def search_budget(loaded: LoadedRun, run: Run, *, budget_bits: int, search: Search, limits: tuple[CostLimit, ...] = ()) -> SearchResult:
    """Search for the best choice of at most `budget_bits` that satisfies `limits`. The run stores the measurements.

    Raises:
        UserError: the method cannot search for such a budget, or with further limits; no choice satisfies them; an objective is not finite.
    """
    require_limits_taken(search.method, limits)
    space = run.space
    require_possible(space, budget_bits // 8, limits)
    largest = list(largest_uniforms(run, lambda choice: bool(space.total_bits(choice) <= budget_bits)).values())
    rows, limit = tuple(limit.row for limit in limits), SizeLimit(budget_bits // 8)
    start = [*by_reduction(space, run.table, budget_bits // 8, rows).values(), *largest]
    return _search(loaded, run, search, lambda problem: search.method.for_budget(problem, budget_bits), start=start, rows=rows, limit=limit)


def search_front(loaded: LoadedRun, run: Run, *, n_points: int, search: Search) -> SearchResult:
    """Search for the whole front, starting from `n_points` of the predicted one. The run stores the measurements.

    Raises:
        UserError: an objective is not finite.
    """
    start = list(uniforms(run).values())
    return _search(loaded, run, search, lambda problem: search.method.for_front(problem, n_points), start=start)


def _search(
    loaded: LoadedRun,
    run: Run,
    search: Search,
    strategy_for: Callable[[Problem], Strategy],
    *,
    start: Sequence[Choice],
    rows: tuple[Row, ...] = (),
    limit: SizeLimit | None = None,
) -> SearchResult:
    """Run the strategy for the run's problem. The run stores its history, and which text and objective it measured."""
    require_suited(search.method, run.space)
    meter, store = Meter(), loaded.store
    with open_problem(loaded, run, search, meter, start=start, rows=rows) as (problem, evaluator):
        strategy = strategy_for(problem)
        with timed(store, STAGE):  # the evaluator counts the tokens, so a resumed search counts none twice
            explored = run_strategy(strategy, evaluator, search=search, meter=meter, progress=loaded.progress)
        first = evaluator.objectives[0]
        store.put_text(SEARCH_TEXT, json.dumps([evaluator.key_of(first), first.name]))
        store_history(run, explored, method=search.method, objectives=[one.name for one in evaluator.objectives], limit=limit)
    return explored


def require_limits_taken(method: Method, limits: Sequence[object]) -> None:
    """Require that a method satisfies limits beside the budget, where there are any.

    Raises:
        UserError: it does not.
    """
    if limits and not method.takes_side_limits:
        raise UserError(
            f"Ceilings beside the budget need a method that supports them; {method.name} does not: leave out --at-most, or choose --method "
            f"{AUTO.name}."
        )


def require_suited(method: Method, space: Space) -> None:
    """Require that a method can search a space.

    Raises:
        UserError: it needs experts, or chooses the formats of weights alone and the space has cache types.
    """
    method.require_space(space)
    if has_cache(space) and not method.takes_cache_types:
        raise UserError(
            f"Cache types need a method that chooses them; {method.name} chooses the formats of weights alone: choose --method {AUTO.name}, or "
            f"--cache-types {DEFAULT_CACHE_TYPE.lower()}."
        )
