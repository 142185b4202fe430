"""A strategy at work: what it asks for is measured, one choice at a time, until it has finished or the effort is spent.

Whatever was measured before, in this process or another, is taken from the run and counted as if it had been measured now. So a search that was
interrupted goes on by being run again, and two strategies in one run folder are compared at the effort that each would have needed alone.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from bitwright.objectives import Evaluator, Measurement, standard_error
from bitwright.progress import Progress
from bitwright.ranges import EVALUATIONS, SECONDS, TOKENS
from bitwright.search import Question, Strategy, Trials, no_trials
from bitwright.spaces import Choice

_SHOWN = 1_000  # steps of a progress bar whose end is a share


@dataclass(frozen=True)
class Effort:
    """How much a search may spend: choices measured, tokens read (forward and backward passes alike), seconds. `inf` sets no limit.

    Raises:
        UserError: a limit below zero, or one that is not a number.
    """

    evaluations: float = inf
    tokens: float = inf
    seconds: float = inf

    def __post_init__(self) -> None:
        EVALUATIONS.require(self.evaluations)
        TOKENS.require(self.tokens)
        SECONDS.require(self.seconds)


@dataclass(eq=False)
class Meter:
    """What a search has spent so far."""

    evaluations: int = 0
    forward_tokens: int = 0
    backward_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of forward and of backward passes."""
        return self.forward_tokens + self.backward_tokens

    def read(self, *, forward: float, backward: float) -> None:
        """Count tokens of a forward and of a backward pass."""
        self.forward_tokens += round(forward)
        self.backward_tokens += round(backward)

    def share_of(self, effort: Effort) -> float:
        """The largest share of any limit that is spent; 1 or more where there is nothing left."""
        spent = ((self.evaluations, effort.evaluations), (self.tokens, effort.tokens), (self.seconds, effort.seconds))
        return max(1.0 if not limit else value / limit for value, limit in spent)

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Add what the block takes."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


@dataclass(frozen=True, eq=False)
class Explored:
    """The course of a search: everything measured, step by step with all that was spent by then, all that was `spent`, and `is_finished`: whether it
    ended by itself.
    """

    trials: Trials
    steps: tuple[tuple[Measurement, Meter], ...]
    spent: Meter
    is_finished: bool


def explore(strategy: Strategy, evaluator: Evaluator, *, effort: Effort, meter: Meter, progress: Progress) -> Explored:
    """Let a strategy search until it has finished or the effort is spent; the evaluation that passes the limit is the last.

    `meter` may already hold what was spent before, and is counted on.

    Raises:
        UserError: whatever the objectives refuse; every evaluation until then is kept.
    """
    found: list[Trials] = []
    steps: list[tuple[Measurement, Meter]] = []
    read: dict[bytes, int] = {}  # sequences of each choice that are paid for
    with progress.stage("Searching", _SHOWN) as advance:
        shown = 0
        while meter.share_of(effort) < 1:
            with meter.timing():
                question = strategy.ask()
            if question.is_last:
                advance(_SHOWN - shown)
                return _explored(found, steps, spent=meter, is_finished=True)
            told: list[Trials] = []
            for choice in question.choices:
                measurement = evaluator(choice, question.n_sequences, against=tuple(question.against))
                trial = _told(evaluator, question, choice, measurement)
                _pay(meter, measurement, read, choice)
                told.append(trial)
                steps.append((measurement, replace(meter)))
                now = min(_SHOWN, int(_SHOWN * meter.share_of(effort)))
                advance(now - shown)
                shown = now
                if meter.share_of(effort) >= 1:
                    break
            found.append(_all(told))
            strategy.tell(found[-1])
    return _explored(found, steps, spent=meter, is_finished=False)


def _told(evaluator: Evaluator, question: Question, choice: Choice, measurement: Measurement) -> Trials:
    """What the strategy is told of a choice.

    A choice that was given up early is told as its rival's value plus their paired difference, which takes out how hard the first sequences are.
    """
    values = np.array([[estimate.value for estimate in measurement.estimates.values()]])
    errors = np.array([[estimate.standard_error for estimate in measurement.estimates.values()]])
    paired = np.full(1, np.nan)
    for rival in question.against:
        other = evaluator(rival, question.n_sequences)
        difference = measurement.by_sequence - other.by_sequence[: measurement.n_sequences]
        paired[0] = standard_error(difference[:, 0])
        if measurement.n_sequences < other.n_sequences:
            values[0] = [estimate.value for estimate in other.estimates.values()] + difference.mean(axis=0)
    return Trials(choice[None], values, errors, np.array([measurement.n_sequences]), paired)


def _pay(meter: Meter, measurement: Measurement, read: dict[bytes, int], choice: Choice) -> None:
    """Count the sequences of a choice that were not counted yet."""
    before = read.get(choice.tobytes(), 0)
    meter.evaluations += choice.tobytes() not in read
    read[choice.tobytes()] = max(before, measurement.n_sequences)
    new = max(measurement.n_sequences - before, 0) / max(measurement.n_sequences, 1)
    meter.forward_tokens += round(new * measurement.n_tokens)
    meter.seconds += new * measurement.seconds


def _all(trials: list[Trials]) -> Trials:
    columns = zip(*((t.choices, t.values, t.errors, t.n_sequences, t.paired_errors) for t in trials), strict=True)
    return Trials(*(np.concatenate(column) for column in columns))


def _explored(found: list[Trials], steps: list[tuple[Measurement, Meter]], *, spent: Meter, is_finished: bool) -> Explored:
    everything = found[0] if found else no_trials(0)
    for trials in found[1:]:
        everything = everything.joined(trials)
    return Explored(everything, tuple(steps), replace(spent), is_finished)
