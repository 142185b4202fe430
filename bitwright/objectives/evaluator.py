"""Evaluate choices on the first sequences of one text, with early stopping and every finished part stored.

All choices are measured on the same first sequences, so two are compared by their paired differences (common random numbers; Glasserman & Yao,
Management Science 38, 1992). A choice that races against others is measured on 8, 16, 32, ... sequences and stopped as soon as it is worse by more
than `CLEAR_MARGIN` standard errors of the paired difference. Stored sequences are never measured again, so a search can begin with few tokens.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model, Stitcher
from bitwright.errors import ObjectiveError
from bitwright.objectives.measurement import standard_error
from bitwright.objectives.objective import Estimate, ModelObjective, TokenObjective
from bitwright.objectives.reference import Reference
from bitwright.objectives.store import Store
from bitwright.spaces import Choice

CLEAR_MARGIN = 3.0
_FIRST_RUNG = 8  # sequences


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Estimates of all objectives for one choice on the first `n_sequences` sequences, in the order of the objectives.

    `by_sequence` `(n_sequences, n_token_objectives)` are the values of the token objectives; `n_tokens` were read for them, and `seconds` were spent
    on all objectives, in this process or an earlier one.
    """

    estimates: tuple[Estimate, ...]
    by_sequence: NDArray[np.float64]
    n_sequences: int
    n_tokens: int
    seconds: float


class Evaluator:
    """Evaluate choices of one space against the original's predictions on one text.

    `weights` loads a choice into the model (`compress.stitched`). `text` is the key of the values in the store: a digest of the tokens, and the
    objectives. Model objectives are evaluated once for every choice.
    """

    def __init__(
        self,
        model: Model,
        weights: Stitcher,
        *,
        reference: Reference,
        objectives: Sequence[TokenObjective | ModelObjective],
        store: Store,
        stage: str = "",
    ) -> None:
        """Tokens are counted in the run's `stage` when they are read, not again when what came of them is; in none where it is empty."""
        self._model, self._weights, self._reference, self._store, self._stage = model, weights, reference, store, stage
        self.objectives = tuple(objectives)
        self._of_tokens = [objective for objective in objectives if isinstance(objective, TokenObjective)]
        text = hashlib.sha256(reference.tokens.ids.tobytes()).hexdigest()[:12]
        self.text = f"{text} {reference.tokens.ids.shape} {','.join(objective.name for objective in self._of_tokens)}"

    @property
    def first_objective_key(self) -> str:
        """Return the store key of the first objective, whose values are in the first column."""
        first = self.objectives[0]
        return self.text if isinstance(first, TokenObjective) else _key(first)

    @property
    def n_sequences(self) -> int:
        """Return the number of sequences of the text."""
        return len(self._reference.tokens.ids)

    def __call__(self, choice: Choice, n_sequences: int, *, against: Sequence[Choice] = ()) -> Evaluation:
        """Evaluate a choice `(n_units,)` on the first `n_sequences`, or on fewer where it is clearly worse than one of `against` in the first
        objective. With a model objective, which has no values by sequence, nothing is stopped early.

        Raises:
            ObjectiveError: a value is not finite, or a model objective fails.
            ModelError: a logit is not finite.
        """
        n_sequences = min(n_sequences, self.n_sequences)
        racing = len(self._of_tokens) == len(self.objectives)
        rivals = [self(rival, n_sequences).by_sequence for rival in against] if racing else []
        values, seconds = self._known(choice)
        reached = 0
        for reached in _rungs(n_sequences, racing=bool(rivals)):
            if reached > len(values) and self._of_tokens:
                more, took = self._measured(choice, len(values), reached)
                values, seconds = np.concatenate([values, more]), seconds + took
            if any(_is_clearly_worse(values[:reached, 0], rival[:reached, 0]) for rival in rivals):
                break
        return self._evaluation(choice, values[:reached], n_sequences=reached, seconds=seconds)

    def _evaluation(self, choice: Choice, values: NDArray[np.float64], *, n_sequences: int, seconds: float) -> Evaluation:
        columns, estimates = iter(values.T), []
        for objective in self.objectives:
            if isinstance(objective, TokenObjective):
                estimates.append(objective.summarise(next(columns)))
            else:
                found, took = self._of_model(objective, choice)
                estimates.append(found)
                seconds += took
        return Evaluation(tuple(estimates), values, n_sequences, values.shape[0] * self._reference.tokens.ids.shape[1], seconds)

    def _known(self, choice: Choice) -> tuple[NDArray[np.float64], float]:
        """Return the stored values `(n, n_token_objectives)` of a choice's first sequences, and the seconds they took."""
        parts = self._store.evaluations(self.text, choice.tolist())
        empty = np.zeros((0, len(self._of_tokens)))
        return np.concatenate([empty, *(values for values, _ in parts)]), sum(seconds for _, seconds in parts)

    def _measured(self, choice: Choice, first: int, stop: int) -> tuple[NDArray[np.float64], float]:
        """Measure and store the values `(stop - first, n_token_objectives)` of the sequences from `first` up to `stop`."""
        started = time.perf_counter()
        self._weights.load_choice(choice)
        found = self._reference.compare(self._model, self._of_tokens, first=first, stop=stop)
        by_sequence = [objective.by_sequence(values) for objective, values in zip(self._of_tokens, found, strict=True)]
        values, seconds = np.stack(by_sequence, axis=1), time.perf_counter() - started
        if not np.isfinite(values).all():
            name = self._of_tokens[int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])].name
            raise ObjectiveError(f"An objective must be finite for every choice; {name} is infinite or undefined for one: choose another objective.")
        self._store.put_evaluation(self.text, choice.tolist(), first=first, values=values, seconds=seconds)
        if self._stage:
            n_tokens = (stop - first) * self._reference.tokens.ids.shape[1]
            self._store.put_stage(self._stage, seconds=0.0, n_tokens=n_tokens, peak_memory_bytes=0)
        return values, seconds

    def _of_model(self, objective: ModelObjective, choice: Choice) -> tuple[Estimate, float]:
        """Evaluate a model objective, or take it from the store: the estimate, and the seconds it took."""
        key = _key(objective)
        if not self._store.evaluations(key, choice.tolist()):
            started = time.perf_counter()
            self._weights.load_choice(choice)
            found = objective.evaluate_model(self._model)
            values = np.array([[found.value, found.standard_error]])
            self._store.put_evaluation(key, choice.tolist(), first=0, values=values, seconds=time.perf_counter() - started)
        (values, seconds), *_ = self._store.evaluations(key, choice.tolist())
        return Estimate(float(values[0, 0]), float(values[0, 1])), seconds


def _key(objective: ModelObjective) -> str:
    return f"model {objective.name}"


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
