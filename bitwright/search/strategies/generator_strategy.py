"""Strategies written as generators that yield questions and are sent the trials of each.

An algorithm then reads in the order of its paper, with its state in local variables. The generator advances in `ask`, not in `tell`, so no
computation is spent after the last question that the effort allows; a question stays the same until it is answered.
"""

from collections.abc import Generator

import numpy as np

from bitwright.search.strategies.problem import Problem
from bitwright.search.strategies.strategy import Question, Strategy, Trials, asked, no_trials

#: generator that yields nonempty questions, is sent the trials of each, and returns when the search has finished
Asking = Generator[Question, Trials, None]


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
