"""What other processes do in tests: functions that can be told by name to a new process."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from bitwright.objectives import Measurement, Store
from bitwright.pipeline import Settings, verbs
from bitwright.progress import Advance, Progress
from bitwright.spaces import Budget


def fill_store(tell: Connection, path: Path) -> None:
    """Put measurements and large arrays into a store for ever, telling of each that was put."""
    store = Store(path)
    for i in count():
        store.put(Measurement((i,), (float(i),) * 200, 1.0, 1.0, 1, 1.0))
        tell.send(i)
        store.put_array(f"array {i}", np.full(60_000, i))
        tell.send(i)


class Telling(Progress):
    """Tells of every stage that begins and of every step."""

    def __init__(self, tell: Connection) -> None:
        self._tell = tell

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """See `Progress.stage`."""
        self._tell.send(title)

        def advance(_: int) -> None:
            self._tell.send(title)

        yield advance


def fit(tell: Connection, settings: Settings, budget: Budget, out: Path) -> None:
    """A whole `fit`, telling of its progress."""
    torch.set_num_threads(1)
    verbs.fit(settings, budget, out, progress=Telling(tell))
    tell.send("finished")
