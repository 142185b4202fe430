"""Strategies written as generators that yield questions and are sent the trials of each.

An algorithm then reads in the order of its paper, with its state in local variables. The generator advances in `ask`, not in `tell`, so no
computation is spent after the last question that the effort allows; a question stays the same until it is answered.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from bitwright.search.solvers.constraints import Row
from bitwright.search.strategies.strategy import Question, Strategy, Trials, asked, no_trials
from bitwright.spaces import Choices, Space

#: generator that yields nonempty questions, is sent the trials of each, and returns when the search has finished
Asking = Generator[Question, Trials, None]


@dataclass(frozen=True, eq=False)
class Problem:
    """Search problem, common to all strategies.

    `start` `(n, n_units)` holds choices to measure first and may be empty. A full measurement takes `n_sequences` sequences. All randomness comes
    from `seed`. Strategies that support side constraints ask only for choices that satisfy the `rows`.
    """

    space: Space
    start: Choices
    n_sequences: int
    seed: int
    rows: tuple[Row, ...] = ()

    def __post_init__(self) -> None:
        if self.start.ndim != 2 or not self.space.offered[np.arange(len(self.space.units)), self.start].all():
            raise ValueError(f"starting choices must be rows of {len(self.space.units)} offered formats, these are of shape {self.start.shape}")

    def start_within(self, budget_bits: int) -> Choices:
        """Return the choices of `start` `(n, n_units)` whose file has at most `budget_bits` and which satisfy the rows."""
        return self.kept(self.start[self.space.total_bits(self.start) <= budget_bits])

    def kept(self, choices: Choices) -> Choices:
        """Return the rows of `choices` `(n, n_units)` that satisfy the side constraints."""
        return choices[[all(row.holds(choice) for row in self.rows) for choice in choices]] if self.rows else choices

    def random(self) -> np.random.Generator:
        """Return a new random generator from `seed`, the same each time."""
        return np.random.default_rng(self.seed)


class GeneratorStrategy(Strategy):
    """Strategy driven by a generator."""

    def __init__(self, problem: Problem, asking: Asking) -> None:
        self._asking, self._finished = asking, asked(no_trials(len(problem.space.units)).choices, problem.n_sequences)
        self._question: tuple[Question, ...] = ()
        self._answer: tuple[Trials, ...] = ()

    def ask(self) -> Question:
        """Return the question that the generator waits at."""
        if not self._question:
            self._question = (self._go_on(),)
        return self._question[0]

    def tell(self, trials: Trials) -> None:
        """Send the trials to the generator.

        Raises:
            ValueError: the trials are not the first choices of the last question, or a value or error of theirs is not a finite number.
        """
        asked_for = self.ask().choices[: len(trials)]
        if not np.array_equal(trials.choices, asked_for):
            raise ValueError(f"trials must be the first choices of the question; these {len(trials)} are not its first {len(asked_for)}")
        if not (np.isfinite(trials.values).all() and np.isfinite(trials.errors).all()):
            raise ValueError("values and errors of trials must be finite")
        self._question, self._answer = (), (trials,)

    def _go_on(self) -> Question:
        try:
            return self._asking.send(self._answer[0]) if self._answer else next(self._asking)
        except StopIteration:
            return self._finished
