"""Interface for progress reports of long work. The library prints nothing itself: the caller passes a `Progress`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Advance = Callable[[int], None]


class Progress(ABC):
    """Receiver of the stages of a run."""

    @abstractmethod
    def stage(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """Enter a stage of `total` steps; the returned function is called with the number of steps just done."""

    def note(self, sentence: str) -> None:  # noqa: ARG002
        """Report a message that the user should see before the end; ignored by default."""
        return


class Silent(Progress):
    """Progress that reports nothing."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Advance]:  # noqa: ARG002
        """Enter a stage and report none of its steps."""
        return nullcontext(ignore)


def ignore(_: int) -> None:
    """Report no step."""
