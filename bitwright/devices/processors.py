"""Processors that this process may use, how many of them nothing else uses now, and numbers of threads as words."""

import os
import sys
from pathlib import Path

import psutil

from bitwright.errors import UserError
from bitwright.ranges import THREADS

ALL, FREE = "all", "free"
_LOOKED_AT = 1.0  # seconds in which idle processors are counted
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(_allowed())


def free_processors(quota: Path = _QUOTA) -> int:
    """Return the number of those processors that were idle during a second, rounded, and at least one; not more than the `quota` of the process's
    control group (Linux) lets it use.
    """
    busy: list[float] = psutil.cpu_percent(interval=_LOOKED_AT, percpu=True)
    idle: float = sum(1 - busy[processor] / 100 for processor in _allowed() if processor < len(busy))
    return max(1, min(round(idle), _lent(quota)))


def parse_threads(text: str) -> tuple[int, ...]:
    """Read `1,4,all`: numbers of threads, `all` for as many as this process has processors, `free` for those that are idle now.

    Raises:
        UserError: see `thread_words`.
    """
    return tuple(dict.fromkeys(n_threads(word) for word in thread_words(text)))


def thread_words(text: str) -> list[str]:
    """Return the words of `1,4,all`.

    Raises:
        UserError: a word is neither a number nor `all` nor `free`, or no process has so many threads.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = [word for word in words if word not in (ALL, FREE) and not (word.isascii() and word.isdigit())]
    if wrong or not words:
        raise UserError(f"Threads are numbers, '{ALL}' or '{FREE}', as in 1,{ALL}; '{wrong[0] if wrong else text}' is none: name some.")
    for word in words:
        if word not in (ALL, FREE):
            THREADS.require(int(word))
    return words


def n_threads(word: str) -> int:
    """Return the number of threads of one of `thread_words`."""
    return processors() if word == ALL else free_processors() if word == FREE else int(word)


def _allowed() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [*range(os.cpu_count() or 1)]


def _lent(quota: Path) -> int:
    """Return the processors that a control group lets its processes use: `200000 100000`, microseconds in a period, are two."""
    try:
        most, period = quota.read_text().split()
    except (OSError, ValueError):
        return processors()
    return processors() if most == "max" else max(1, int(most) // int(period))
