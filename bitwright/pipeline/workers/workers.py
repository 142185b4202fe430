"""Interface of workers: they do tasks, which are values that can be pickled, each at its bench.

A task computes the same wherever it is done and whoever did the tasks before it, so that a run has one plan whatever the number of workers is, and a
task that was lost with its worker is done again by another.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from bitwright.pipeline.workers.bench import Bench, Identity
from bitwright.pipeline.workers.shared import Shared
from bitwright.progress import Advance, ignore

T = TypeVar("T")
R = TypeVar("R")


class Task(ABC, Generic[R]):
    """Part of the work of a run."""

    @property
    @abstractmethod
    def place(self) -> int:
        """Return the first sequence that it reads, -1 for none; tasks of one place go to the same worker where that costs no time."""

    @property
    @abstractmethod
    def n_steps(self) -> int:
        """Return what it counts for in the progress."""

    @abstractmethod
    def do(self, bench: Bench) -> R:
        """Return the result of the task, computed at a worker's bench.

        Raises:
            UserError: it cannot be done; the run ends with the sentence.
        """


class Workers(ABC):
    """Workers that have the model of a run, `n_workers` of them. The driver, which asks them, is the only one that writes into the run's folder."""

    n_workers: int

    @abstractmethod
    def require(self, identity: Identity) -> None:
        """Wait for a worker to be ready, and refuse any whose model or versions are not the driver's.

        Raises:
            RunError: one differs.
            UserError: a worker cannot load the model.
        """

    @abstractmethod
    def share(self, key: str, make: Callable[[], T]) -> Shared[T]:
        """Return the value of `make` as workers may ask for it; it is made unless one of that key is known."""

    @abstractmethod
    def each(self, tasks: Sequence[Task[R]], advance: Advance = ignore) -> Iterator[R]:
        """Have the tasks done, and yield their results in order.

        Raises:
            UserError: a task cannot be done.
        """
