"""Ways to measure choices on a text: in this process, or by others.

An `Evaluator` decides what is measured, and stores it; how it is measured is behind `Measuring`. Every way gives the same numbers, since batches of
sequences are the same in all of them (`batches_of`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model
from bitwright.objectives.objective import TokenObjective
from bitwright.objectives.reference import PendingReference, Reference
from bitwright.spaces import Choice

_STREAMED_AT_ONCE = 8  # choices


class Measuring(ABC):
    """Way to measure choices of one space on one text."""

    @property
    @abstractmethod
    def at_once(self) -> int:
        """Return the number of choices that are best measured together."""

    @abstractmethod
    def measure(self, choices: Sequence[Choice], objectives: Sequence[TokenObjective], *, first: int, stop: int) -> list[NDArray[np.float64]]:
        """Compute objectives of choices, each `(n_units,)`, on the sequences from `first` up to `stop`: `(stop - first, n_objectives)` for each.

        Raises:
            ModelError: a logit is not finite.
        """


class InThisProcess(Measuring):
    """Way to measure with a model of this process: `load` gives it the weights of a choice, which is compared with the original's predictions."""

    def __init__(self, model: Model, load: Callable[[Choice], None], reference: Reference | PendingReference) -> None:
        self._model, self._load, self._reference = model, load, reference

    @property
    def at_once(self) -> int:
        """Return the number of choices that share the reading of a streamed model's blocks."""
        return _STREAMED_AT_ONCE if self._model.residence.is_streamed else 1

    def measure(self, choices: Sequence[Choice], objectives: Sequence[TokenObjective], *, first: int, stop: int) -> list[NDArray[np.float64]]:
        """Compute the objectives in one pass for all choices."""
        reference = self._reference.computed(first, stop)  # before the weights are loaded
        return reference.measure_each(self._model, objectives, [partial(self._load, choice) for choice in choices], first=first, stop=stop)
