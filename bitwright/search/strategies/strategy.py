"""Ask/tell interface of search strategies, and the records that they exchange with the measuring loop.

    strategy.ask()  ->  Question   choices to measure, and on how much text
    strategy.tell(Trials)          their measured values

A strategy never measures and never reads a clock: it is given a seed, a space and prior knowledge, and decides from the trials that it is told. Told
the same trials it asks the same questions, in another process too; so a run is resumed by telling a new strategy the stored trials again. It may ask
for a choice again, whose values the measuring loop has cached, but finishes where the space has no choice left that it has not asked for.

A prediction is a function of choices, and a predictor a function from measured choices to a prediction: both are passed in, so that a strategy can
be tested with a lambda.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choices

#: prediction: choices `(n, n_units)` -> mean and standard deviation, each `(n,)`, nats/token
Predict = Callable[[Choices], tuple[NDArray[np.float64], NDArray[np.float64]]]
#: predictor: choices `(n, n_units)`, values `(n,)`, standard errors `(n,)` -> a prediction
Refit = Callable[[Choices, NDArray[np.float64], NDArray[np.float64]], Predict]


@dataclass(frozen=True, eq=False)
class Question:
    """Request to measure `choices` `(n, n_units)` on the first `n_sequences` sequences of the search text, the same for all.

    A choice that is clearly worse than `against` `(0 or 1, n_units)` may be stopped early. A question without choices means that the strategy has
    finished.
    """

    choices: Choices
    n_sequences: int
    against: Choices

    @property
    def is_last(self) -> bool:
        """Return whether the strategy has finished."""
        return not len(self.choices)


@dataclass(frozen=True, eq=False)
class Trials:
    """Measured choices, in the order of the question.

    `choices` `(n, n_units)`; `values` and their standard errors `errors` `(n, n_objectives)`, all minimised, the first the KL divergence in
    nats/token (size is no objective here: the space gives it); `n_sequences` `(n,)` that each was measured on, fewer than asked for where it was
    stopped early. `paired_errors` `(n,)` are standard errors of the difference from the choice that each raced against, NaN where there was none, and
    empty where no trial had one.
    """

    choices: Choices
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    n_sequences: NDArray[np.int64]
    paired_errors: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.choices)

    def only(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "Trials":
        """Return the trials at `index`."""
        return Trials(self.choices[index], self.values[index], self.errors[index], self.n_sequences[index], self._paired()[index])

    def joined(self, others: "Trials") -> "Trials":
        """Concatenate with other trials; of a choice in both, keep the one measured on more sequences, of equals the newer."""
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
        """Return the paired errors `(n,)`, NaN where there was no race."""
        return self.paired_errors if len(self.paired_errors) else np.full(len(self.choices), np.nan)


def no_trials(n_units: int, n_objectives: int = 1) -> Trials:
    """Return empty trials."""
    nothing = np.zeros((0, n_objectives))
    return Trials(np.zeros((0, n_units), dtype=np.int64), nothing, nothing, np.zeros(0, dtype=np.int64))


def asked(choices: Choices, n_sequences: int) -> Question:
    """Return a question in which no choice is stopped early."""
    return Question(choices, n_sequences, choices[:0])


class Strategy(ABC):
    """Ask/tell strategy: chooses the next plans to measure."""

    @abstractmethod
    def ask(self) -> Question:
        """Return the choices to measure next. Called twice without `tell` in between, it returns the same question."""

    @abstractmethod
    def tell(self, trials: Trials) -> None:
        """Receive the trials of the last question: one per choice, or fewer from its beginning where the evaluations ran out."""
