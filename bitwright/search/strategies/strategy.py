"""Ask and tell: what every strategy that learns from true measurements is, and the few things it exchanges with whoever measures.

    strategy.ask()  ->  Question   choices to measure, and on how much text
    strategy.tell(Trials)          what they were worth

A strategy never measures and never stops a clock: it is handed a seed, a space and what it may know beforehand, and answers from what it is told.
Told the same, it asks the same, in another process too; so a run is resumed by telling a new strategy again what is already measured. It is
free to ask for a choice twice: whoever measures keeps the answers.

A prediction is a function of choices, and a predictor a function from measured choices to a prediction: both are handed in, so that a strategy is
tested with a lambda.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choices

#: choices `(n, n_units)` -> expected value and its standard deviation, each `(n,)`, nats/token
Predict = Callable[[Choices], tuple[NDArray[np.float64], NDArray[np.float64]]]
#: choices `(n, n_units)`, values `(n,)`, standard errors `(n,)` -> a prediction
Refit = Callable[[Choices, NDArray[np.float64], NDArray[np.float64]], Predict]


@dataclass(frozen=True, eq=False)
class Question:
    """`choices` `(n, n_units)` to measure on the first `n_sequences` sequences of the search text, which are the same for all.

    Whoever measures may stop a choice early that is clearly worse than `against` `(0 or 1, n_units)`. A question without choices says that the
    strategy has finished.
    """

    choices: Choices
    n_sequences: int
    against: Choices

    @property
    def is_last(self) -> bool:
        """Return whether there is nothing more to ask."""
        return not len(self.choices)


@dataclass(frozen=True, eq=False)
class Trials:
    """Measured choices, in the order of the question.

    `choices` `(n, n_units)`; `values` and their standard errors `errors` `(n, n_objectives)`, all minimised, the first the divergence in
    nats/token (size is no objective here: the space knows it); `n_sequences` `(n,)` that each was measured on, fewer than asked for where it was
    stopped. `paired_errors` `(n,)` are standard errors of the difference from the choice that each raced against, NaN where it had no rival, and
    empty where none had.
    """

    choices: Choices
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    n_sequences: NDArray[np.int64]
    paired_errors: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.choices)

    def only(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "Trials":
        """Some of them."""
        return Trials(self.choices[index], self.values[index], self.errors[index], self.n_sequences[index], self._paired()[index])

    def joined(self, others: "Trials") -> "Trials":
        """These and others; of a choice that is in both, what was measured on more sequences, and of equals the newer."""
        both = Trials(
            np.concatenate([self.choices, others.choices]),
            np.concatenate([self.values, others.values]),
            np.concatenate([self.errors, others.errors]),
            np.concatenate([self.n_sequences, others.n_sequences]),
            np.concatenate([self._paired(), others._paired()]),
        )
        kept: dict[bytes, int] = {}
        for i, choice in enumerate(both.choices):
            key = choice.tobytes()
            if key not in kept or both.n_sequences[i] >= both.n_sequences[kept[key]]:
                kept[key] = i
        return both.only(np.array(list(kept.values()), dtype=np.int64))

    def _paired(self) -> NDArray[np.float64]:
        """One for each trial, NaN where there was no race."""
        return self.paired_errors if len(self.paired_errors) else np.full(len(self.choices), np.nan)


def no_trials(n_units: int, n_objectives: int = 1) -> Trials:
    """Nothing measured yet."""
    nothing = np.zeros((0, n_objectives))
    return Trials(np.zeros((0, n_units), dtype=np.int64), nothing, nothing, np.zeros(0, dtype=np.int64))


def asked(choices: Choices, n_sequences: int) -> Question:
    """A question in which nothing is stopped early."""
    return Question(choices, n_sequences, choices[:0])


class Strategy(ABC):
    """How to choose what to measure next."""

    @abstractmethod
    def ask(self) -> Question:
        """What to measure next. Asked twice without being told in between, it answers the same."""

    @abstractmethod
    def tell(self, trials: Trials) -> None:
        """What came of the last question: as many trials as it had choices, or fewer from its beginning where the effort was spent."""
