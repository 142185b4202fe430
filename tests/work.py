"""Work for other processes in tests: functions that can be told by name to a new process."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from bitwright.cli import commands
from bitwright.objectives import Store
from bitwright.pipeline import Settings, verbs
from bitwright.progress import Advance, Progress
from bitwright.spaces import Budget
from tests.processes import process
from tests.runs import BRIEF

SILENCE_SECONDS = 120
CANNOT_DROP = 77  # exit code of a process that may not drop its privileges
_VERSION, _PASS_OVER_PERMISSIONS = 0x20080522, 0b110  # of capset(2); CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of capabilities(7)


def fill_store(tell: Connection, path: Path) -> None:
    """Put measurements and large arrays into a store for ever, telling of each that was put."""
    store = Store(path)
    for i in count():
        store.put_measured("text", [i], {"kl": np.full((200, 1), float(i))}, first=0, seconds=1.0)
        tell.send(i)
        store.put_array(f"array {i}", np.full(60_000, i))
        tell.send(i)


class Telling(Progress):
    """Progress that tells of every stage that begins and of every step."""

    def __init__(self, tell: Connection) -> None:
        self._tell = tell

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """Send the title at the beginning and at every step."""
        self._tell.send(title)

        def advance(_: int) -> None:
            self._tell.send(title)

        yield advance


def command(tell: Connection, words: list[str], folder: Path, printed: Path) -> None:
    """The command line with these words in a folder, all that it prints in a file; its exit code is that of the process."""
    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ |= {"COLUMNS": "160", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    descriptor = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["bitwright", *words]
    tell.send("begun")
    commands.main()


def command_without_a_reader(tell: Connection, words: list[str], folder: Path, printed: Path) -> None:
    """Run the command with an output that nobody reads; its errors are in a file."""
    hear, output = os.pipe()
    os.close(hear)
    sys.stdout = os.fdopen(output, "w", encoding="utf-8")
    command(tell, words, folder, printed)


def unprivileged_command(tell: Connection, words: list[str], folder: Path, printed: Path) -> None:
    """Run the command without the capabilities that let root pass over permissions; other users never had them."""
    system = ctypes.CDLL(None)
    whose, held = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()  # twice: effective, permitted, inheritable
    system.capget(whose, held)
    for kind in range(3):
        held[kind] &= ~_PASS_OVER_PERMISSIONS
    if system.capset(whose, held):
        os._exit(CANNOT_DROP)
    command(tell, words, folder, printed)


def fit(tell: Connection, settings: Settings, budget: Budget, out: Path) -> None:
    """A whole `fit` with a brief search, telling of its progress."""
    torch.set_num_threads(1)
    verbs.fit(settings, budget, out, by=BRIEF, progress=Telling(tell))
    tell.send("finished")


def fit_elsewhere(settings: Settings, budget: Budget, out: Path) -> None:
    """A whole `fit` to its end in a process whose hashes of text are not those of this one."""
    with process(fit, settings, budget, out) as running:
        told = list(running.news(SILENCE_SECONDS))
        assert running.exit_code(SILENCE_SECONDS) == 0
    assert told[-1] == "finished"
