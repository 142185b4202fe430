"""Run a search method on the calibration text of one run. Held-out text is left for measuring its candidates."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import EXPANDED_BYTES, Distortion, WeightSwapper, choice_loader, swapping
from bitwright.errors import ObjectiveError, UserError
from bitwright.methods import AUTO, METHOD_PARTS, Method, MethodContext, Table
from bitwright.objectives import (
    OBJECTIVE_PARTS,
    CostObjective,
    Evaluator,
    NamedObjective,
    PendingReference,
    parse_objectives,
)
from bitwright.pipeline.loaded_run import LoadedRun, referenced_if_needed, timed
from bitwright.pipeline.planning.cost_limits import CostLimit, require_possible
from bitwright.pipeline.planning.held_out import prepared
from bitwright.pipeline.pricing.price_table import distortion_of, priced, subject_of
from bitwright.pipeline.pricing.priced_rows import SWEPT
from bitwright.pipeline.pricing.run_space import uniforms, whole_space
from bitwright.pipeline.run import SEARCH_TEXT, Run
from bitwright.pipeline.searching.ask_tell_loop import Effort, Meter, SearchResult, run_strategy
from bitwright.pipeline.searching.search_history import store_history
from bitwright.predictors import Expansion, gradient_products, may_drop, moved, predictor_named, proxy_named, scores_of, stored, with_cache_steps
from bitwright.report import SizeLimit
from bitwright.search import Expand, Problem, Refit, Row, Strategy, require_extra
from bitwright.spaces import DEFAULT_CACHE_TYPE, Choice, Space, has_cache, weight_space, without_cache

_UNIFORMS, _STAGE = 2, "search"


@dataclass(frozen=True)
class Search:
    """Search method, effort and objectives.

    The first of several `objectives` is minimised and the others are reported; without any, it is the method's own. Size always counts and need not
    be among them; other costs are computed for the candidates. `as_published` ships the method's own best plan even if another candidate measures
    better, and computes nothing that the method does not need.

    Raises:
        UserError: the method is not a `Method`, or an objective is not an objective.
        LibraryError: the method needs a library that is not installed.
    """

    method: Method
    effort: Effort
    objectives: tuple[NamedObjective, ...] = ()
    as_published: bool = False

    def __post_init__(self) -> None:
        METHOD_PARTS.require(self.method)
        for objective in self.objectives:
            OBJECTIVE_PARTS.require(objective)
        for library in self.method.libraries:
            require_extra(library)


DEFAULT = Search(AUTO, Effort(evaluations=16))


@dataclass(frozen=True, eq=False)
class SearchSession:
    """Running search: its evaluator on the calibration text, the weight swapper, and the meter of the effort spent."""

    loaded: LoadedRun
    run: Run
    search: Search
    evaluator: Evaluator
    reference: PendingReference
    swapper: WeightSwapper
    meter: Meter
    scores: dict[tuple[str, ...], NDArray[np.float64]] = field(default_factory=dict)
    paid: set[str] = field(default_factory=set)

    def method_context(self, start: Sequence[Choice], rows: tuple[Row, ...] = ()) -> MethodContext:
        """Return the context that a method receives. Choices of `start` that the space does not offer are left out."""
        space = self.run.space
        units = np.arange(len(space.units))
        first = np.array([choice for choice in start if space.offered[units, choice].all()], dtype=np.int64).reshape(-1, len(units))
        problem = Problem(space, first, self.evaluator.n_sequences, self.loaded.settings.seed, rows)
        length = self.loaded.texts.calibration.ids.shape[1]
        return MethodContext(
            problem,
            (self.run.table, self.run.second_table),
            refit=self.refit,
            price=self.price,
            score=self.score,
            measure=self.measure,
            sequence_length=length,
            expand=self._expand(),
        )

    def refit(self, name: str, space: Space) -> Refit:
        """Return the fit function of the predictor of that name for a space; predictors that start from a table need the run's own space."""
        return predictor_named(name, space, self.run.table, seed=self.loaded.settings.seed).fit

    def price(self, name: str) -> Table:
        """Return the table of a proxy; its tokens are counted as effort of the search the first time."""
        self.swapper.restore()
        self._pay(name, self.run.space)
        return priced(self.loaded, name, space=self.run.space, distortion=self._distortion())

    def score(self, name: str, space: Space) -> NDArray[np.float64]:
        """Return the scores `(n_units,)` of a proxy for the units of a space; its tokens are counted as effort of the search the first time."""
        self.swapper.restore()
        key = (name, *(unit.name for unit in space.units))
        if key not in self.scores:
            self._pay(name, space)
            self.scores[key] = scores_of(name, subject_of(self.loaded, space))
        return self.scores[key]

    def _pay(self, name: str, space: Space) -> None:
        """Count the tokens of a proxy, once."""
        passes, n_tokens = proxy_named(name).passes(space), self.loaded.texts.calibration.n_tokens
        if name not in self.paid:
            self.meter.read(forward=passes.forward * n_tokens, backward=passes.backward * n_tokens)
        self.paid.add(name)

    def measure(self, choice: Choice) -> float:
        """Return the first objective of a choice on all of the text; its tokens are counted as effort."""
        found = self.evaluator(choice, self.evaluator.n_sequences)
        self.meter.read(forward=found.n_tokens, backward=0)
        return found.first.value

    def explore(self, strategy: Strategy, *, limit: SizeLimit | None) -> SearchResult:
        """Run a strategy until it has finished or the effort is spent. The run stores its history, and which text and objective it measured."""
        with timed(self.loaded.store, _STAGE):  # the evaluator counts the tokens, so a resumed search counts none twice
            explored = run_strategy(strategy, self.evaluator, effort=self.search.effort, meter=self.meter, progress=self.loaded.progress)
        first = self.evaluator.objectives[0]
        self.loaded.store.put_text(SEARCH_TEXT, json.dumps([self.evaluator.key_of(first), first.name]))
        store_history(self.run, explored, method=self.search.method, objectives=[one.name for one in self.evaluator.objectives], limit=limit)
        return explored

    def _distortion(self) -> Distortion:
        return distortion_of(self.loaded, whole_space(self.loaded))

    def _expanded(self, expansion: Expansion, choice: Choice, n_tokens: int) -> tuple[Table, Table]:
        """Return slopes and curvatures at a choice; `n_tokens` are counted the first time only, since the run stores the sweep."""
        store, key = self.loaded.store, f"swept/{hashlib.sha256(choice.tobytes()).hexdigest()[:16]}"
        self.swapper.restore()
        found = expansion(choice)
        if not store.has_text(key):
            store.put_text(key, self.evaluator.text)
            store.put_stage(_STAGE, seconds=0.0, n_tokens=n_tokens, peak_memory_bytes=0)
        return found

    def _expand(self) -> Expand | None:
        """Return the function for slopes at a choice, if the run's sensitivity stored the gradient products from which curvatures are computed."""
        if self.loaded.settings.sensitivity not in SWEPT:
            return None
        run, space = self.run, weight_space(self.run.space)
        subject = subject_of(self.loaded, stored(space))
        self.swapper.restore()
        expansion, n_tokens = Expansion(subject, gradient_products(subject), self.reference), subject.tokens.n_tokens

        def expand(choice: Choice) -> tuple[Table, Table]:
            self.meter.read(forward=n_tokens, backward=n_tokens)
            slopes, curvatures = self._expanded(expansion, without_cache(run.space, choice), 2 * n_tokens)
            if has_cache(run.space):
                flat = np.zeros((len(choice) - len(slopes), curvatures.shape[1]))
                return with_cache_steps(slopes, choice, table=run.table, space=run.space), np.concatenate([curvatures, flat])
            return moved(slopes, curvatures, choice, table=run.table, space=space) if may_drop(space) else (slopes, curvatures)

        return expand


@contextmanager
def open_session(loaded: LoadedRun, run: Run, search: Search) -> Iterator[SearchSession]:
    """Open a search session inside the `with` block; afterwards the model has its original weights."""
    tokens = loaded.texts.calibration
    _require_weights_alone(run, search.method)
    with (
        swapping(loaded.model, expanded_bytes=EXPANDED_BYTES) as swapper,
        referenced_if_needed(loaded, tokens, swapper.restore) as reference,
    ):
        objectives = prepared(loaded, search.objectives, tokens) or (search.method.objective,)
        load = choice_loader(swapper, loaded.model, loaded.levels, run.everything)
        evaluator = Evaluator(loaded.model, load, reference=reference, objectives=objectives, store=loaded.store, stage=_STAGE)
        yield SearchSession(loaded, run, search, evaluator, reference, swapper, Meter())


def _require_weights_alone(run: Run, method: Method) -> None:
    if has_cache(run.space) and not method.takes_cache_types:
        raise UserError(
            f"Cache types need a method that chooses them; {method.name} chooses the formats of weights alone: choose --method {AUTO.name}, or "
            f"--cache-types {DEFAULT_CACHE_TYPE.lower()}."
        )


def named_objectives(text: str) -> tuple[NamedObjective, ...]:
    """Parse the objectives named in `text`; empty text names none.

    Raises:
        UserError: a word is unknown or its objective cannot be used, or there are only costs, which need no search.
    """
    named = parse_objectives(text) if text.strip() else ()
    if named and all(isinstance(objective, CostObjective) for objective in named):
        raise ObjectiveError(
            f"A search needs an objective beside costs, which are known without measuring; '{text}' names none: add one, such as kl."
        )
    return named


def search_budget(loaded: LoadedRun, run: Run, *, budget_bits: int, search: Search, limits: tuple[CostLimit, ...] = ()) -> SearchResult:
    """Search for the best choice of at most `budget_bits` that satisfies `limits`. The run stores the measurements.

    Raises:
        UserError: the method cannot search for such a budget, or with further limits; no choice satisfies them; an objective is not finite.
    """
    if limits and not search.method.takes_side_limits:
        raise UserError(
            f"Ceilings beside the budget need a method that supports them; {search.method.name} does not: leave out --at-most, or choose --method "
            f"{AUTO.name}."
        )
    space = run.space
    require_possible(space, budget_bits // 8, limits)
    fitting = [choice for choice in uniforms(run).values() if space.total_bits(choice) <= budget_bits]
    largest = sorted(fitting, key=lambda choice: (-space.total_bytes(choice), run.summed(choice)))[:_UNIFORMS]
    with open_session(loaded, run, search) as session:
        strategy = search.method.for_budget(session.method_context(largest, tuple(limit.row for limit in limits)), budget_bits)
        return session.explore(strategy, limit=SizeLimit(budget_bits // 8))


def search_front(loaded: LoadedRun, run: Run, *, n_points: int, search: Search) -> SearchResult:
    """Search for the whole front, starting from `n_points` of the predicted one. The run stores the measurements.

    Raises:
        UserError: an objective is not finite.
    """
    with open_session(loaded, run, search) as session:
        strategy = search.method.for_front(session.method_context(list(uniforms(run).values())), n_points)
        return session.explore(strategy, limit=None)
