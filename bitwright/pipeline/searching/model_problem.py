"""Search problem of a run whose model is loaded: what a method may ask of the model, each answer computed once and its tokens counted as effort."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import EXPANDED_BYTES, WeightSwapper, choice_loader, swapping
from bitwright.objectives import Evaluator, PendingReference
from bitwright.pipeline.loaded_run import LoadedRun, referenced_if_needed
from bitwright.pipeline.planning.held_out import prepared
from bitwright.pipeline.pricing.price_table import distortion_of, priced, subject_of
from bitwright.pipeline.pricing.priced_rows import SWEPT
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.pipeline.run import Run
from bitwright.pipeline.searching.ask_tell_loop import Meter
from bitwright.pipeline.searching.search import Search
from bitwright.pipeline.workers.measuring import measuring_of
from bitwright.predictors import (
    Expansion,
    Mixtures,
    gradient_products,
    may_drop,
    moved,
    predictor_named,
    proxy_named,
    scores_of,
    stored,
    with_cache_steps,
)
from bitwright.search import Expand, Problem, Refit, Row
from bitwright.spaces import Choice, Space, has_cache, weight_space, without_cache

Table = NDArray[np.float64]
#: the stage of the run that a search's seconds and tokens belong to
STAGE = "search"


@contextmanager
def open_problem(
    loaded: LoadedRun, run: Run, search: Search, meter: Meter, *, start: Sequence[Choice] = (), rows: tuple[Row, ...] = ()
) -> Iterator[tuple[Problem, Evaluator]]:
    """Open the problem that a search of the run poses, and the evaluator of its choices on the calibration text, for use inside the `with` block;
    afterwards the model has its original weights. Choices of `start` that the space does not offer are left out. The `meter` counts the tokens of
    what a method asks of the model.
    """
    tokens = loaded.texts.calibration
    with (
        swapping(loaded.model, expanded_bytes=EXPANDED_BYTES) as swapper,
        referenced_if_needed(loaded, tokens, swapper.restore) as reference,
    ):
        objectives = prepared(loaded, search.objectives, tokens) or (search.method.objective,)
        load = choice_loader(swapper, loaded.model, loaded.levels, run.everything)
        by = measuring_of(loaded.workers, loaded.levels, run.everything, tokens, is_streamed=loaded.model.residence.is_streamed)
        evaluator = Evaluator(loaded.model, load, reference=reference, objectives=objectives, store=loaded.store, stage=STAGE, measuring=by)
        yield _Answers(loaded, run, evaluator, reference, swapper, meter).problem(start, rows), evaluator


@dataclass(frozen=True, eq=False)
class _Answers:
    """Answers of a run's model to the questions of a problem."""

    loaded: LoadedRun
    run: Run
    evaluator: Evaluator
    reference: PendingReference
    swapper: WeightSwapper
    meter: Meter
    scores: dict[tuple[str, ...], NDArray[np.float64]] = field(default_factory=dict)
    paid: set[str] = field(default_factory=set)

    def problem(self, start: Sequence[Choice], rows: tuple[Row, ...]) -> Problem:
        """Return the problem whose functions are the methods of these answers."""
        space = self.run.space
        units = np.arange(len(space.units))
        return Problem(
            space,
            np.array([choice for choice in start if space.offered[units, choice].all()], dtype=np.int64).reshape(-1, len(units)),
            self.evaluator.n_sequences,
            self.loaded.settings.seed,
            rows,
            tables=(self.run.table, self.run.second_table),
            sequence_length=self.loaded.texts.calibration.ids.shape[1],
            refit=self.refit,
            price=self.price,
            score=self.score,
            measure=self.measure,
            mix=self.mix,
            expand=self._expand(),
        )

    def refit(self, name: str, space: Space) -> Refit:
        """Return the fit function of the predictor of that name for a space; predictors that start from a table need the run's own space."""
        return predictor_named(name, space, self.run.table, seed=self.loaded.settings.seed).fit

    def price(self, name: str) -> Table:
        """Return the table of a proxy; its tokens are counted as effort of the search the first time."""
        self.swapper.restore()
        self._pay(name, self.run.space)
        return priced(self.loaded, name, space=self.run.space, distortion=distortion_of(self.loaded, whole_space(self.loaded)))

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

    def mix(self, shares: Table, sequences: NDArray[np.int64]) -> tuple[float, Table]:
        """Return the divergence of mixed weights on some sequences, and its slopes; their tokens are counted as effort both ways."""
        self.swapper.restore()
        n_tokens = len(sequences) * self.loaded.texts.calibration.ids.shape[1]
        self.meter.read(forward=n_tokens, backward=n_tokens)
        return self.mixtures(shares, sequences)

    @cached_property
    def mixtures(self) -> Mixtures:
        """Mixtures of the formats of the run's space."""
        return Mixtures(subject_of(self.loaded, self.run.space), self.reference)

    def _expanded(self, expansion: Expansion, choice: Choice, n_tokens: int) -> tuple[Table, Table]:
        """Return slopes and curvatures at a choice; `n_tokens` are counted the first time only, since the run stores the sweep."""
        store, key = self.loaded.store, f"swept/{hashlib.sha256(choice.tobytes()).hexdigest()[:16]}"
        self.swapper.restore()
        found = expansion(choice)
        if not store.has_text(key):
            store.put_text(key, self.evaluator.text)
            store.put_stage(STAGE, seconds=0.0, n_tokens=n_tokens, peak_memory_bytes=0)
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
