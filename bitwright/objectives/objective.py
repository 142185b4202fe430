"""What an objective is: one number that a search makes small, with its standard error.

Everything is minimised, so accuracy is an error rate and agreement a share of flips. Two kinds: what can be computed from next-token
distributions, of which many share one pass over the text, and what needs the model itself. Costs are objectives too (`cost.py`), but functions of the
space and not of text.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.objectives.measurement import standard_error
from bitwright.objectives.text.tokens import Tokens


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error, both in the objective's unit; the error is infinite where the data cannot tell."""

    value: float
    standard_error: float


class TokenObjective(ABC):
    """What follows from the next-token distributions of the original and of the changed model on the same text, position by position.

    `by_sequence` makes of the values at all `positions` of a sequence one, which is kept, so that choices can be compared pair by pair; `summarise`
    makes one number of all sequences.
    """

    #: those of a sequence at which it has a value
    positions = slice(None)

    @property
    @abstractmethod
    def name(self) -> str:
        """The word by which it is asked for and reported."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """The unit of its values, e.g. nats/token."""

    @abstractmethod
    def of_tokens(self, original: Torch, changed: Torch, following: Torch) -> Torch:
        """Values `(n,)` at `n` positions from the log-probabilities `(n, n_vocabulary)` float32 of the token after each; `following` `(n,)` int64 is
        the one that the text has there.
        """

    def by_sequence(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """One value for each sequence `(n,)` of those at its positions `(n, length)`: their mean, where nothing else is said."""
        means: NDArray[np.float64] = values[:, self.positions].mean(axis=1)
        return means

    def summarise(self, per_sequence: NDArray[np.float64]) -> Estimate:
        """One value from those of all sequences `(n,)`, in the order of the text: their mean, where nothing else is said."""
        return Estimate(float(per_sequence.mean()), standard_error(per_sequence))


class ModelObjective(ABC):
    """What needs more than next-token distributions on the held-out text: hidden states, tasks, a function of the user's."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The word by which it is asked for and reported."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """The unit of its value."""

    @abstractmethod
    def of_model(self, model: Model) -> Estimate:
        """What the model is worth with the weights it has now, which are left as they are.

        Raises:
            ObjectiveError: it cannot be evaluated.
        """


class Preparation(ABC):
    """A model objective that compares with the original, and so must see it first."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The word by which it is asked for."""

    @abstractmethod
    def prepare(self, original: Model, tokens: Tokens) -> ModelObjective:
        """The objective, from the model with its original weights and the text to compare on."""
