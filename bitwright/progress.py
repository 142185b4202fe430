"""Where long work says how far it is. The library prints nothing itself: whoever calls it hands in a `Progress`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Advance = Callable[[int], None]


class Progress(ABC):
    """Receives the stages of a run."""

    @abstractmethod
    def stage(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """Enter a stage of `total` steps; the function it gives is called with the number of steps just done."""

    def note(self, sentence: str) -> None:  # noqa: ARG002
        """Hear what a person should know before the end; nothing is said of it where nobody asks."""
        return


class Silent(Progress):
    """Says nothing."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Advance]:  # noqa: ARG002
        """See `Progress.stage`."""
        return nullcontext(_ignore)


def _ignore(_: int) -> None:
    return
