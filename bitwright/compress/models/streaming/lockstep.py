"""Jobs that run a model together, block by block: each waits at a block until all others have come there.

Each job has a thread of its own, since a model's code cannot be suspended otherwise, but only one of them runs at any time: the one whose turn it is.
So results depend neither on the number of cores nor on their speed, and a block is in memory once for all jobs.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

from bitwright.compress.models.residence import Result
from bitwright.compress.models.streaming.stations import Station


class Cancelled(BaseException):
    """End of a job whose pass was given up; no error, so that no code of a model takes it for one."""


@dataclass(eq=False)
class Turns(Generic[Result]):
    """Job that takes turns: `work` runs in a thread, and waits at each station until it is let on."""

    work: Callable[[], Result]
    wanted: Station | None = None
    is_finished: bool = False
    is_cancelled: bool = False
    results: list[Result] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread, which waits for its first turn."""
        self._thread.start()

    def let(self) -> None:
        """Let the job run until it waits at a station or has finished.

        Raises:
            BaseException: what the job raised.
        """
        self._go.release()
        self._stopped.acquire()
        if self.errors:
            raise self.errors[0]

    def wait_at(self, station: Station) -> None:
        """Wait at a station for the next turn; called by the job itself.

        Raises:
            Cancelled: the pass was given up.
        """
        self.wanted = station
        self._stopped.release()
        self._go.acquire()
        if self.is_cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """End the job and its thread."""
        self.is_cancelled = True
        if self._thread.is_alive():
            self._go.release()
            self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self.is_cancelled:
                self.results.append(self.work())
        except Cancelled:
            pass
        except BaseException as error:  # raised again in the thread that lets the jobs run
            self.errors.append(error)
        finally:
            self.is_finished = True
            self._stopped.release()


def run_together(
    jobs: Sequence[Turns[Result]],
    *,
    enter: Callable[[Turns[Result]], None],
    ordered: Callable[[list[Turns[Result]], Station], list[Turns[Result]]],
    served: Callable[[], None],
) -> Iterator[Result]:
    """Run the jobs station by station and yield their results in order. `enter` is called before each turn, `ordered` returns the order in which jobs
    have their turns at a station, and `served` is called after each round of turns.

    Jobs that want the station that was served last have their turn first, then those that want what the first of all wants.
    """
    n_yielded, last = 0, None
    try:
        for job in jobs:
            job.start()
            enter(job)
            job.let()
        while waiting := [job for job in jobs if not job.is_finished]:
            last = next((job.wanted for job in waiting if job.wanted is last), waiting[0].wanted)
            there = [job for job in waiting if job.wanted is last]
            for job in ordered(there, last) if last is not None else there:
                enter(job)
                job.let()
            served()
            while n_yielded < len(jobs) and jobs[n_yielded].is_finished:
                yield jobs[n_yielded].results.pop()
                n_yielded += 1
        for job in jobs[n_yielded:]:
            yield job.results.pop()
    finally:
        for job in jobs:
            job.cancel()
