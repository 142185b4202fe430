"""Objectives: numbers that a search minimises, each with its standard error.

Everything is minimised, so accuracy becomes an error rate and agreement a share of flips. There are two kinds: a `TokenObjective` is computed from
next-token distributions, and all of them share one pass over the text; a `ModelObjective` needs the model itself. Costs are objectives too
(`cost.py`), computed from the space alone.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.objectives.measurement import Estimate, standard_error
from bitwright.objectives.text.tokens import Tokens


class TokenObjective(ABC):
    """Objective computed at each position from the next-token distributions of the original and of the changed model on the same text.

    `by_sequence` reduces the values at the `positions` of each sequence to one, which is stored so that choices can be compared by paired
    differences; `summarise` reduces the sequences to one number.
    """

    #: the positions of a sequence that have a value
    positions = slice(None)

    @property
    @abstractmethod
    def name(self) -> str:
        """Return its name, on the command line and in reports."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """Return the unit of its values, e.g. nats/token."""

    @abstractmethod
    def token_values(self, original: Torch, changed: Torch, following: Torch) -> Torch:
        """Return the values `(n,)` at `n` positions from the log-probabilities `(n, n_vocabulary)` float32 of the next token; `following` `(n,)`
        int64 are the text's own next tokens.
        """

    def by_sequence(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reduce the values at all positions `(n, length)` to one for each sequence `(n,)`: by default the mean over `positions`."""
        means: NDArray[np.float64] = values[:, self.positions].mean(axis=1)
        return means

    def summarise(self, per_sequence: NDArray[np.float64]) -> Estimate:
        """Reduce the values of all sequences `(n,)`, in the order of the text, to one: by default their mean."""
        return Estimate(float(per_sequence.mean()), standard_error(per_sequence))


class ModelObjective(ABC):
    """Objective that needs the model itself: hidden states, benchmark tasks, a function of the user's."""

    #: true if its value depends on the text that choices are measured on
    reads_text = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Return its name, on the command line and in reports."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """Return the unit of its value."""

    @abstractmethod
    def evaluate_model(self, model: Model) -> Estimate:
        """Evaluate the model with its current weights, which stay unchanged.

        Raises:
            ObjectiveError: it cannot be evaluated.
        """


class Preparation(ABC):
    """Factory of a model objective that compares with the original model, and so has to see it first."""

    #: true if the model must be a mixture of experts
    needs_routers = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Return its name on the command line."""

    @abstractmethod
    def prepare(self, original: Model, tokens: Tokens) -> ModelObjective:
        """Return the objective, from the model with its original weights and the text to compare on."""
