"""Parity of an engine and torch with the model's own weights: what a search for the engine rests on."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model
from bitwright.progress import Advance


class Parity(ABC):
    """Comparison of an engine with torch on the original."""

    @abstractmethod
    def contexts(self, sequences: NDArray[np.int64], longest: int) -> list[NDArray[np.int64]]:
        """Return the contexts to compare after, out of `sequences` `(n_sequences, length)`, of at most `longest` tokens."""

    @abstractmethod
    def compare(self, model: Model, contexts: list[NDArray[np.int64]], folder: Path, advance: Advance) -> dict[str, float]:
        """Return the mean divergence after `contexts` in nats per token, its standard error and the length of the longest context.

        A copy of the model may be written to `folder`.

        Raises:
            ModelError: the engine refuses the model, computes something else, or cuts text otherwise than the model's tokenizer.
            OutputError: there is no room for a copy of the model.
        """
