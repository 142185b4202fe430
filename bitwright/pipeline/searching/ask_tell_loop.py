"""Ask-and-tell loop: measure the choices that a strategy asks for, one at a time, until it has finished or the effort is spent.

Stored measurements, of this process or an earlier one, are reused and counted as if they were made now. So running an interrupted search again
continues it, and two strategies in one run folder are compared at the effort that each would have needed alone.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from bitwright.objectives import Evaluator, Measurement, standard_error
from bitwright.pipeline.searching.search import Search
from bitwright.progress import Progress
from bitwright.search import Question, Strategy, Trials, no_trials
from bitwright.spaces import Choice

_SHOWN = 1_000  # steps of the progress bar, which shows the share of the effort spent


@dataclass(eq=False)
class Meter:
    """Effort that a search has spent so far."""

    evaluations: int = 0
    forward_tokens: int = 0
    backward_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of forward and backward passes together."""
        return self.forward_tokens + self.backward_tokens

    def read(self, *, forward: float, backward: float) -> None:
        """Add tokens of forward and of backward passes."""
        self.forward_tokens += round(forward)
        self.backward_tokens += round(backward)

    def share_of(self, search: Search) -> float:
        """Return the largest spent share of any limit of a search; 1 or more if nothing is left."""
        spent = ((self.evaluations, search.evaluations), (self.tokens, search.tokens), (self.seconds, search.seconds))
        return max(1.0 if not limit else value / limit for value, limit in spent)

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Add the seconds that the `with` block takes."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Result of a search: all trials, each measurement with the effort spent until then, the total effort `spent`, and `is_finished`: whether the
    strategy finished before the effort was spent.
    """

    trials: Trials
    steps: tuple[tuple[Measurement, Meter], ...]
    spent: Meter
    is_finished: bool


def run_strategy(strategy: Strategy, evaluator: Evaluator, *, search: Search, meter: Meter, progress: Progress) -> SearchResult:
    """Run a strategy until it has finished or the effort is spent; the evaluation that exceeds a limit is the last.

    `meter` may already hold effort spent before, and is updated.

    Raises:
        UserError: an objective cannot be evaluated; the evaluations until then stay stored.
    """
    found: list[Trials] = []
    steps: list[tuple[Measurement, Meter]] = []
    read: dict[bytes, int] = {}  # sequences of each choice that are already counted
    with progress.stage("Searching", _SHOWN) as advance:
        shown = 0
        while meter.share_of(search) < 1:
            with meter.timing():
                question = strategy.ask()
            if question.is_last:
                advance(_SHOWN - shown)
                return _explored(found, steps, spent=meter, is_finished=True)
            told: list[Trials] = []
            for choice, measurement in _measured(evaluator, question, left=search.evaluations - meter.evaluations):
                trial = _told(evaluator, question, choice, measurement)
                _pay(meter, measurement, read, choice)
                told.append(trial)
                steps.append((measurement, replace(meter)))
                now = min(_SHOWN, int(_SHOWN * meter.share_of(search)))
                advance(now - shown)
                shown = now
                if meter.share_of(search) >= 1:
                    break
            found.append(_all(told))
            strategy.tell(found[-1])
    return _explored(found, steps, spent=meter, is_finished=False)


def _measured(evaluator: Evaluator, question: Question, *, left: float) -> Iterator[tuple[Choice, Measurement]]:
    """Yield the choices of a question with their measurements: as many are evaluated together as the evaluator can, and at most as the effort has
    `left`.
    """
    at_once = int(max(1, min(evaluator.at_once, left)))
    for start in range(0, len(question.choices), at_once):
        choices = [*question.choices[start : start + at_once]]
        yield from zip(choices, evaluator.evaluate(choices, question.n_sequences, against=tuple(question.against)), strict=True)


def _told(evaluator: Evaluator, question: Question, choice: Choice, measurement: Measurement) -> Trials:
    """Return the trial that the strategy is told of a choice.

    The value of a choice that was stopped early is its rival's value plus their mean paired difference, which removes the difficulty of the first
    sequences.
    """
    values = np.array([[estimate.value for estimate in measurement.estimates.values()]])
    errors = np.array([[estimate.standard_error for estimate in measurement.estimates.values()]])
    paired = np.full(1, np.nan)
    for rival in (rival for rival in question.against if (rival != choice).any()):
        other = evaluator(rival, question.n_sequences)
        difference = measurement.by_sequence - other.by_sequence[: measurement.n_sequences]
        paired[0] = standard_error(difference[:, 0])
        if measurement.n_sequences < other.n_sequences:
            values[0] = [estimate.value for estimate in other.estimates.values()] + difference.mean(axis=0)
    return Trials(choice[None], values, errors, np.array([measurement.n_sequences]), paired)


def _pay(meter: Meter, measurement: Measurement, read: dict[bytes, int], choice: Choice) -> None:
    """Add the sequences of a choice that were not counted yet."""
    before = read.get(choice.tobytes(), 0)
    meter.evaluations += choice.tobytes() not in read
    read[choice.tobytes()] = max(before, measurement.n_sequences)
    new = max(measurement.n_sequences - before, 0) / max(measurement.n_sequences, 1)
    meter.forward_tokens += round(new * measurement.n_tokens)
    meter.seconds += new * measurement.seconds


def _all(trials: list[Trials]) -> Trials:
    return Trials(
        choices=np.concatenate([one.choices for one in trials]),
        values=np.concatenate([one.values for one in trials]),
        errors=np.concatenate([one.errors for one in trials]),
        n_sequences=np.concatenate([one.n_sequences for one in trials]),
        paired_errors=np.concatenate([one.paired_errors for one in trials]),
    )


def _explored(found: list[Trials], steps: list[tuple[Measurement, Meter]], *, spent: Meter, is_finished: bool) -> SearchResult:
    return SearchResult(reduce(Trials.joined, found or [no_trials(0)]), tuple(steps), replace(spent), is_finished)
