"""Evaluate choices on the first sequences of one text, with early stopping and every finished part stored.

All choices are measured on the same first sequences, so two are compared by their paired differences (common random numbers; Glasserman & Yao,
Management Science 38, 1992). A choice that races against others is measured on 8, 16, 32, ... sequences and stopped as soon as it is worse by more
than `CLEAR_MARGIN` standard errors of the paired difference. Stored sequences are never measured again, so a search can begin with few tokens.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model
from bitwright.errors import ObjectiveError
from bitwright.objectives.measurement import Estimate, Measurement, standard_error
from bitwright.objectives.measuring import InThisProcess, Measuring
from bitwright.objectives.metrics.flips import Flips
from bitwright.objectives.metrics.kullback_leibler import KullbackLeibler
from bitwright.objectives.metrics.perplexity import Perplexity
from bitwright.objectives.objective import ModelObjective, TokenObjective
from bitwright.objectives.reference import PendingReference, Reference
from bitwright.objectives.store import Store
from bitwright.objectives.text.tokens import Tokens
from bitwright.spaces import Choice

#: objectives that every candidate is measured by on held-out text
QUALITY: tuple[TokenObjective, ...] = (KullbackLeibler(), Perplexity(), Flips())
CLEAR_MARGIN = 3.0
_FIRST_RUNG = 8  # sequences


class Evaluator:
    """Evaluate choices of one space against the original's predictions on one text, for searches and candidates alike.

    `load` gives the model the weights of a choice (`compress.choice_loader`), rounded by `rounding` where that is not the run's own. Model objectives
    are evaluated once for every choice, and what the store has is never measured again.
    """

    def __init__(
        self,
        model: Model,
        load: Callable[[Choice], None],
        *,
        reference: Reference | PendingReference,
        objectives: Sequence[TokenObjective | ModelObjective],
        store: Store,
        rounding: str = "",
        stage: str = "",
        measuring: Measuring | None = None,
    ) -> None:
        """Tokens are counted in the run's `stage` when they are read, not again when what came of them is; in none where it is empty.
        Token objectives are measured by `measuring`, by default in this process.
        """
        self._model, self._load, self._reference, self._store, self._stage = model, load, reference, store, stage
        self._rounding, self._measuring = rounding, measuring or InThisProcess(model, load, reference)
        self.objectives = tuple(objectives)
        self._of_tokens = [objective for objective in objectives if isinstance(objective, TokenObjective)]
        self.text = text_key(reference.tokens, rounding)

    @property
    def n_sequences(self) -> int:
        """Return the number of sequences of the text."""
        return len(self._reference.tokens.ids)

    @property
    def at_once(self) -> int:
        """Return the number of choices that are best evaluated together."""
        return self._measuring.at_once

    def __call__(self, choice: Choice, n_sequences: int, *, against: Sequence[Choice] = ()) -> Measurement:
        """Evaluate one choice; see `evaluate`."""
        return self.evaluate([choice], n_sequences, against=against)[0]

    def evaluate(self, choices: Sequence[Choice], n_sequences: int, *, against: Sequence[Choice] = ()) -> list[Measurement]:
        """Evaluate choices, each `(n_units,)`, on the first `n_sequences`, or on fewer where one is clearly worse than one of `against` in the first
        objective. With a model objective, which has no values by sequence, nothing is stopped early.

        Raises:
            ObjectiveError: a value is not finite, or a model objective fails.
            ModelError: a logit is not finite.
        """
        n_sequences = min(n_sequences, self.n_sequences)
        racing = len(self._of_tokens) == len(self.objectives)
        rivals = [self(rival, n_sequences).by_sequence for rival in against] if racing else []
        found: dict[int, Measurement] = {}
        running = list(range(len(choices)))
        for reached in _rungs(n_sequences, racing=bool(rivals)):
            self._read([choices[i] for i in running], reached)
            for i in running:
                for objective in self._unasked(choices[i]):
                    self._ask(choices[i], objective)
                found[i] = self._recall(choices[i], reached)
            running = [i for i in running if not any(_is_clearly_worse(found[i].by_sequence[:, 0], rival[:reached, 0]) for rival in rivals)]
        return [found[i] for i in range(len(choices))]

    def _missing(self, choice: Choice, n_sequences: int) -> list[tuple[list[TokenObjective], int]]:
        """Return the token objectives that are not stored up to `n_sequences`, grouped by the sequence that they begin at."""
        known = [(objective, len(self._store.measured(self.text, objective.name, choice.tolist())[0])) for objective in self._of_tokens]
        return [([objective for objective, n in known if n == first], first) for first in sorted({n for _, n in known if n < n_sequences})]

    def _unasked(self, choice: Choice) -> list[ModelObjective]:
        """Return the model objectives whose value is not stored."""
        of_model = [objective for objective in self.objectives if isinstance(objective, ModelObjective)]
        return [objective for objective in of_model if not len(self._store.measured(self.key_of(objective), objective.name, choice.tolist())[0])]

    def _read(self, choices: Sequence[Choice], n_sequences: int) -> None:
        """Measure and store what is not stored up to `n_sequences`, in one pass for all choices that lack the same."""
        lacking: dict[tuple[tuple[str, ...], int], list[Choice]] = {}
        for choice in choices:
            for objectives, first in self._missing(choice, n_sequences):
                lacking.setdefault((tuple(objective.name for objective in objectives), first), []).append(choice)
        for (names, first), together in lacking.items():
            self._measure(together, [objective for objective in self._of_tokens if objective.name in names], first=first, stop=n_sequences)

    def _measure(self, choices: Sequence[Choice], objectives: Sequence[TokenObjective], *, first: int, stop: int) -> None:
        """Measure and store token objectives of choices on the sequences from `first` up to `stop`."""
        started = time.perf_counter()
        found = self._measuring.measure(choices, objectives, first=first, stop=stop)
        seconds = (time.perf_counter() - started) / len(choices)
        for choice, values in zip(choices, found, strict=True):
            if not np.isfinite(values).all():
                name = objectives[int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])].name
                raise ObjectiveError(
                    f"An objective must be finite for every choice; {name} is infinite or undefined for one: choose another objective."
                )
            columns = {objective.name: column[:, None] for objective, column in zip(objectives, values.T, strict=True)}
            self._store.put_measured(self.text, choice.tolist(), columns, first=first, seconds=seconds)
        if self._stage:
            n_tokens = len(choices) * (stop - first) * self._reference.tokens.ids.shape[1]
            self._store.put_stage(self._stage, seconds=0.0, n_tokens=n_tokens, peak_memory_bytes=0)

    def _ask(self, choice: Choice, objective: ModelObjective) -> None:
        """Evaluate and store a model objective."""
        started = time.perf_counter()
        self._load(choice)
        found = objective.evaluate_model(self._model)
        values = {objective.name: np.array([[found.value, found.standard_error]])}
        self._store.put_measured(self.key_of(objective), choice.tolist(), values, first=0, seconds=time.perf_counter() - started)

    def _recall(self, choice: Choice, n_sequences: int) -> Measurement:
        """Return what the store has of a choice on the first `n_sequences`."""
        stored = {objective.name: self._store.measured(self.key_of(objective), objective.name, choice.tolist()) for objective in self.objectives}
        columns = {objective.name: stored[objective.name][0][:n_sequences, 0] for objective in self._of_tokens}
        return Measurement(
            choice=tuple(choice.tolist()),
            estimates={
                objective.name: objective.summarise(columns[objective.name])
                if isinstance(objective, TokenObjective)
                else Estimate(*map(float, stored[objective.name][0][0]))
                for objective in self.objectives
            },
            by_sequence=np.stack(list(columns.values()), axis=1) if columns else np.zeros((0, 0)),
            n_sequences=n_sequences,
            n_tokens=n_sequences * self._reference.tokens.ids.shape[1] if columns else 0,
            seconds=sum(seconds for _, seconds in stored.values()),
        )

    def key_of(self, objective: TokenObjective | ModelObjective) -> str:
        """Return the key of the text and rounding that an objective's values belong to: the same for all texts where it reads none."""
        return self._rounding if isinstance(objective, ModelObjective) and not objective.reads_text else self.text


def text_key(tokens: Tokens, rounding: str = "") -> str:
    """Return the key of the values measured on a text, of choices rounded by `rounding` where that is not the run's own."""
    digest = hashlib.sha256(tokens.ids.tobytes()).hexdigest()[:12]
    return ", ".join([f"{digest} {tokens.ids.shape}", *([rounding] if rounding else [])])


def quality_of(store: Store, tokens: Tokens, rounding: str = "") -> dict[tuple[int, ...], Measurement]:
    """Return every choice whose `QUALITY` was measured on all of a text, in the order in which they were."""
    key = text_key(tokens, rounding)
    *others, last = (store.all_measured(key, objective.name) for objective in QUALITY)
    return {
        choice: _of_quality(choice, [*(found[choice] for found in others), last[choice]], tokens)
        for choice in last
        if all(choice in found and len(found[choice][0]) == len(tokens.ids) for found in (*others, last))
    }


def _of_quality(choice: tuple[int, ...], stored: list[tuple[NDArray[np.float64], float]], tokens: Tokens) -> Measurement:
    values = np.concatenate([column for column, _ in stored], axis=1)
    estimates = {objective.name: objective.summarise(column) for objective, column in zip(QUALITY, values.T, strict=True)}
    return Measurement(choice, estimates, values, len(values), tokens.n_tokens, sum(seconds for _, seconds in stored))


def _rungs(n_sequences: int, *, racing: bool) -> Iterator[int]:
    """Yield the numbers of sequences after which a choice is compared: 8, 16, 32, ... in a race, else all at once."""
    rung = _FIRST_RUNG
    while racing and rung < n_sequences:
        yield rung
        rung *= 2
    yield n_sequences


def _is_clearly_worse(values: NDArray[np.float64], rival: NDArray[np.float64]) -> bool:
    """Return whether the mean paired difference of two columns `(n,)` is above zero by more than `CLEAR_MARGIN` standard errors."""
    difference = values - rival
    return float(difference.mean()) > CLEAR_MARGIN * standard_error(difference)
