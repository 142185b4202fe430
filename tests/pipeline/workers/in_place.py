"""Workers of this process, each with a bench of its own, whose tasks are pickled as if they were sent and done out of order."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bitwright as bw
from bitwright.pipeline.workers.bench import Bench, Identity, open_bench
from bitwright.pipeline.workers.shared import Shared
from bitwright.pipeline.workers.workers import Task, Workers
from bitwright.progress import Advance, ignore


@dataclass(frozen=True)
class Pickled(Shared[Any]):
    key: str
    data: bytes

    def get(self) -> Any:
        return pickle.loads(self.data)


class InPlace(Workers):
    def __init__(self, benches: Sequence[Bench]) -> None:
        self.benches, self.n_workers, self.n_done = benches, len(benches), 0
        self._shared: dict[str, Pickled] = {}
        self._rng = np.random.default_rng(len(benches))

    def require(self, identity: Identity) -> None:
        assert not self.benches[0].identity.difference(identity)

    def share(self, key: str, make: Callable[[], Any]) -> Shared[Any]:
        if key not in self._shared:
            self._shared[key] = Pickled(key, pickle.dumps(make()))
        return self._shared[key]

    def each(self, tasks: Sequence[Task[Any]], advance: Advance = ignore) -> Iterator[Any]:
        results = {}
        for i in self._rng.permutation(len(tasks)):
            sent: Task[Any] = pickle.loads(pickle.dumps(tasks[i]))
            results[i] = sent.do(self.benches[self._rng.integers(len(self.benches))])
            self.n_done += 1
            advance(tasks[i].n_steps)
        yield from (results[i] for i in range(len(tasks)))


@contextmanager
def in_place(n_workers: int, settings: bw.Settings, folder: Path) -> Iterator[InPlace]:
    with ExitStack() as stack:
        on_device = settings.on_device("cpu")
        yield InPlace([stack.enter_context(open_bench(on_device, folder / f"worker-{i}", device="cpu")) for i in range(n_workers)])
