"""Work in other processes, which can be killed at any moment. They are forked from one that has the imports done, so starting one is quick."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Protocol

_forks = multiprocessing.get_context("forkserver")
_models = [f"transformers.models.{name}.modeling_{name}" for name in ("llama", "mixtral")]  # transformers imports them with the first model
_forks.set_forkserver_preload(["bitwright.pipeline", "bitwright.objectives", "tests.work", *_models])


class Work(Protocol):
    """Work of another process; `tell` sends news to the one that started it."""

    def __call__(self, tell: Connection, /, *args: Any) -> None:
        """Run the work."""


class Process:
    """A running piece of work."""

    def __init__(self, work: Work, *args: Any) -> None:
        self._hear, tell = _forks.Pipe(duplex=False)
        self._process = _forks.Process(target=work, args=(tell, *args), daemon=True)
        self._process.start()
        tell.close()

    def news(self, seconds: float) -> Iterator[Any]:
        """Yield what the process tells, until it ends or has been silent for so long."""
        while self._hear.poll(seconds):
            try:
                yield self._hear.recv()
            except EOFError:
                return

    def kill(self) -> None:
        """SIGKILL: nothing of the process runs any more."""
        self._process.kill()
        self._process.join()

    def send(self, number: int) -> None:
        """A signal, where the process still runs."""
        if self._process.pid and self._process.is_alive():
            os.kill(self._process.pid, number)

    def exit_code(self, seconds: float) -> int | None:
        """Return the exit code of the process, or None where it has not ended."""
        self._process.join(seconds)
        return self._process.exitcode

    def close(self) -> None:
        """End it, if it has not ended, and free what it held."""
        self.kill()
        self._process.close()
        self._hear.close()


@contextmanager
def process(work: Work, *args: Any) -> Iterator[Process]:
    """`work(tell, *args)` in another process for as long as the block lasts."""
    started = Process(work, *args)
    try:
        yield started
    finally:
        started.close()
