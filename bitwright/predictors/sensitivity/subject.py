"""Input of every proxy: a model, its tensors in every format, and calibration text."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model, PackedTensors, RowSample, all_rows
from bitwright.objectives import Reference, Store, Tokens
from bitwright.progress import Advance, Progress
from bitwright.spaces import Format, Space


@dataclass(frozen=True, eq=False)
class Subject:
    """Model and its packed tensors `levels`, the `space` whose pairs are priced, calibration `tokens`, and the `seed` of random draws.

    Long computations report to `progress`, and cache finished parts in `store`. Sweeps of gradients price formats by the rows of `sample`, by default
    by all of `levels`, and are made `elsewhere` if others can do them.
    """

    model: Model
    levels: PackedTensors
    space: Space
    tokens: Tokens
    seed: int
    store: Store
    progress: Progress
    sample: RowSample | None = None
    elsewhere: "Elsewhere | None" = None

    @cached_property
    def priced_rows(self) -> RowSample:
        """The rows by which sweeps price formats."""
        return self.sample or all_rows(self.levels)


class SubjectPart(ABC):
    """Part of a sweep that another process can do, given an equal subject with the priced rows in every offered format: it can be pickled."""

    @property
    @abstractmethod
    def formats(self) -> Mapping[str, Format]:
        """Return the tensors that it needs whole, each in a format."""

    @property
    @abstractmethod
    def sequences(self) -> slice:
        """Return the sequences that it reads."""

    @property
    @abstractmethod
    def n_tokens(self) -> int:
        """Return the number of tokens that it reads."""

    @abstractmethod
    def do(self, subject: Subject, predictions: Callable[[], Reference]) -> list[NDArray[np.float64]]:
        """Return what the part computes, one array for each of its batches. `predictions` returns the original's on its sequences.

        The model has its original weights, before and after.
        """


class Elsewhere(ABC):
    """Processes that have the model of a subject too."""

    @property
    @abstractmethod
    def n_workers(self) -> int:
        """Return how many there are."""

    @abstractmethod
    def each(self, subject: Subject, parts: Sequence[SubjectPart], advance: Advance) -> Iterator[list[NDArray[np.float64]]]:
        """Have the parts done, and yield their results in order."""
