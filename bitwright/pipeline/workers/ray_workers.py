"""Workers in a Ray cluster (Moritz et al., OSDI 2018), each an actor that has loaded the model.

A worker that dies, alone or with its node, is replaced, and its task is given to another. Results are told in the order of the tasks, so whatever
happened on the way, the driver stores the same. A task that ends three workers one after another ends the run: it would end all others too.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch

from bitwright.errors import RunError, UserError, shown
from bitwright.pipeline.settings import Settings
from bitwright.pipeline.workers.bench import Bench, Identity, open_bench
from bitwright.pipeline.workers.cluster import Cluster
from bitwright.pipeline.workers.ray_cluster import joined, require_ray, room_for
from bitwright.pipeline.workers.scratch import worker_folder
from bitwright.pipeline.workers.shared import Shared
from bitwright.pipeline.workers.workers import Task, Workers
from bitwright.progress import Advance, Progress, ignore

T = TypeVar("T")
R = TypeVar("R")

_DEATHS = 3  # of workers with one task
_PATIENCE_SECONDS = 600.0  # for a worker to open, while no other works
_SHARED_BYTES = 1 << 31  # packed tensors that stay in Ray's store after the tasks that needed them


@dataclass(frozen=True)
class RayShared(Shared[T]):
    """Value in Ray's object store."""

    key: str
    reference: Any

    def get(self) -> T:
        """Fetch the value; arrays of the store of this node are not copied."""
        found: T = require_ray().get(self.reference)
        return found


class BenchActor:
    """Actor around a worker's bench. It pickles a result, or the user's error, so that its size is known, and Ray sends these bytes as they are."""

    def __init__(self, settings: Settings, device: str, n_threads: int) -> None:
        """Load the model; `n_threads` is the number of torch's threads, the driver's, since sums depend on it."""
        torch.set_num_threads(n_threads)
        self._stack, self._bench = ExitStack(), list[Bench]()
        self._settings, self._device = settings, device

    def open(self) -> Identity | UserError:
        """Load the model, and return what must be the same in the driver."""
        try:
            folder = self._stack.enter_context(worker_folder())
            self._bench.append(self._stack.enter_context(open_bench(self._settings, folder, device=self._device)))
        except UserError as error:
            return error
        return self._bench[0].identity

    def do(self, task: Task[Any]) -> tuple[bytes, int]:
        """Return the pickled result of a task, and how many bytes of packed tensors this worker received so far."""
        bench = self._bench[0]
        try:
            found = task.do(bench)
        except UserError as error:
            found = error
        return pickle.dumps(found, protocol=pickle.HIGHEST_PROTOCOL), bench.received_bytes

    def close(self) -> None:
        """Remove the worker's folder."""
        self._stack.close()


@dataclass(eq=False)
class _Worker:
    """Actor that opens, or has task number `task`, or none where that is -1."""

    actor: Any
    identity: Identity = field(default_factory=lambda: Identity({}))
    is_open: bool = False
    task: int = -1
    received_bytes: int = 0
    returned_bytes: int = 0


@dataclass(eq=False)
class RayWorkers(Workers):
    """Workers of a cluster; see `open_workers`. `make` returns a new actor."""

    ray: ModuleType
    make: Callable[[], Any]
    n_workers: int
    n_deaths: int = 0
    _asked: dict[Any, _Worker] = field(default_factory=dict)  # those at work, by the reference of their answer
    _idle: list[_Worker] = field(default_factory=list)
    _dead: list[_Worker] = field(default_factory=list)
    _places: dict[int, _Worker] = field(default_factory=dict)
    _shared: "OrderedDict[str, tuple[Shared[Any], int]]" = field(default_factory=OrderedDict)
    _expected: list[Identity] = field(default_factory=list)  # one, once the driver has loaded its model

    @property
    def moved_bytes(self) -> tuple[int, int]:
        """Bytes of packed tensors that workers received, and of results that they returned."""
        known = [*self._asked.values(), *self._idle, *self._dead]
        return sum(worker.received_bytes for worker in known), sum(worker.returned_bytes for worker in known)

    def start(self) -> None:
        """Have the missing workers open, which takes as long as loading the model; they do so while the driver does."""
        while len(self._asked) + len(self._idle) < self.n_workers:
            actor = self.make()
            self._asked[actor.open.remote()] = _Worker(actor)

    def require(self, identity: Identity) -> None:
        """Wait for a worker to have opened, and refuse any whose model or versions differ from the driver's.

        Raises:
            RunError: see above.
            UserError: a worker cannot load the model.
        """
        self._expected = [identity]
        while not self._idle:
            self._wait([], [])
        for worker in self._idle:
            self._require_same(worker)

    def gather(self) -> None:
        """Wait until all workers have opened, as a measurement of time does; a run begins with the first."""
        while any(not worker.is_open for worker in self._asked.values()):
            self._wait([], [])

    def share(self, key: str, make: Callable[[], T]) -> Shared[T]:
        """Return the value in Ray's store, put there once."""
        if key not in self._shared:
            value = make()
            n_bytes = value.nbytes if isinstance(value, np.ndarray) else 0
            self._shared[key] = RayShared(key, self.ray.put(value)), n_bytes
        self._shared.move_to_end(key)
        return self._shared[key][0]

    def each(self, tasks: Sequence[Task[R]], advance: Advance = ignore) -> Iterator[R]:
        """Give each free worker a task, and that of one that died to another."""
        self._forget_tasks()
        waiting, results, deaths = list(range(len(tasks))), dict[int, R](), [0] * len(tasks)
        for i in range(len(tasks)):
            while i not in results:
                self._give(tasks, waiting)
                for number, found in self._wait(waiting, deaths):
                    results[number] = found
                    advance(tasks[number].n_steps)
            yield results.pop(i)
        self._trim()

    def _forget_tasks(self) -> None:
        """Wait for those who still have a task of an earlier call, whose results nobody waits for."""
        while any(worker.is_open for worker in self._asked.values()):
            for worker in self._asked.values():
                worker.task = -1
            self._wait([], [])

    def _give(self, tasks: Sequence[Task[Any]], waiting: list[int]) -> None:
        """Give tasks to idle workers: to each one of a place that it knows, else one of a place that none does, else any."""
        while waiting and self._idle:
            worker = self._idle.pop()
            own = (i for i in waiting if self._places.get(tasks[i].place) is worker)
            new = (i for i in waiting if tasks[i].place not in self._places)
            worker.task = next(own, next(new, waiting[0]))
            waiting.remove(worker.task)
            if tasks[worker.task].place >= 0:
                self._places.setdefault(tasks[worker.task].place, worker)
            self._asked[worker.actor.do.remote(tasks[worker.task])] = worker

    def _wait(self, waiting: list[int], deaths: list[int]) -> list[tuple[int, Any]]:
        """Wait until a worker has opened, died, or done its task; return the number of the task and its result, if it is that."""
        are_open = any(worker.is_open for worker in self._asked.values())
        ready, _ = self.ray.wait([*self._asked], num_returns=1, timeout=None if are_open else _PATIENCE_SECONDS)
        if not ready:
            raise RunError(
                f"A worker must open within {_PATIENCE_SECONDS / 60:.0f} minutes; none did, of {self.n_workers} that were asked for: see that the "
                "cluster has a node left with room for the model, and run the same command again."
            )
        worker = self._asked.pop(ready[0])
        try:
            found = self.ray.get(ready[0])
        except self.ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from error
        except self.ray.exceptions.RayError as error:
            self._bury(worker, waiting, deaths, error)
            return []
        if not worker.is_open:
            worker.is_open, worker.identity = True, _sound(found)
            self._require_same(worker)
            self._idle.append(worker)
            return []
        result, worker.received_bytes = found
        worker.returned_bytes += len(result)
        number, worker.task = worker.task, -1
        self._idle.append(worker)
        return [(number, _sound(pickle.loads(result)))]

    def _require_same(self, worker: _Worker) -> None:
        different = next((worker.identity.difference(expected) for expected in self._expected), "")
        if different:
            raise RunError(
                f"Workers must have the run's model and versions; one has {different}: install the same versions and copy the same files to "
                "all nodes."
            )

    def _bury(self, worker: _Worker, waiting: list[int], deaths: list[int], error: Exception) -> None:
        """Put back the task of a worker that died, and have another worker open.

        Raises:
            RunError: the task has ended several workers, or workers do not even open.
        """
        self.n_deaths += 1
        self._dead.append(worker)
        self._places = {place: other for place, other in self._places.items() if other is not worker}
        if worker.task >= 0:
            deaths[worker.task] += 1
            waiting.insert(0, worker.task)
        if self.n_deaths > _DEATHS * self.n_workers or max(deaths, default=0) >= _DEATHS:
            raise RunError(
                f"A worker that dies is replaced; {self.n_deaths} died ({shown(error, 200)}): see that each has memory for the model, give fewer "
                "--workers, and run the same command again."
            ) from error
        self.start()

    def _trim(self) -> None:
        """Let go of the packed tensors that were longest not needed."""
        n_bytes = sum(size for _, size in self._shared.values())
        for key in [key for key, (_, size) in self._shared.items() if size]:
            if n_bytes <= _SHARED_BYTES:
                return
            n_bytes -= self._shared.pop(key)[1]

    def close(self) -> None:
        """Have the workers remove their folders and end."""
        closing = [worker.actor.close.remote() for worker in self._idle]
        if closing:
            self.ray.wait(closing, num_returns=len(closing), timeout=10.0)
        for worker in [*self._idle, *self._asked.values()]:
            self.ray.kill(worker.actor)
        self._idle.clear()
        self._asked.clear()


def _sound(result: Any) -> Any:
    if isinstance(result, UserError):
        raise result
    return result


@contextmanager
def open_workers(cluster: Cluster, settings: Settings, *, device: str, memory_bytes: int, progress: Progress) -> Iterator[RayWorkers]:
    """Join or start a cluster, and have workers load the model of the settings on their `device`; they end with the `with` block, and so does a
    cluster that was started. `memory_bytes` is what one of them needs.

    Raises:
        LibraryError: Ray is not installed.
        UserError: there is no cluster at the address, or it has no room for so many workers.
    """
    ray, n_gpus = require_ray(), cluster.gpus_per_worker or int(device.startswith("cuda"))
    with joined(ray, cluster):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        n_workers = room_for(nodes, cluster.n_workers, n_gpus=n_gpus, memory_bytes=memory_bytes)
        cores = min(node.get("CPU", 1) for node in nodes) // -(-n_workers // len(nodes))
        n_threads = int(max(1, min(torch.get_num_threads(), cores)))
        options = {"max_restarts": 0, "num_cpus": 1, "num_gpus": n_gpus, "memory": memory_bytes, "scheduling_strategy": "SPREAD"}
        remote = ray.remote(**options)(BenchActor)
        workers = RayWorkers(ray, lambda: remote.remote(settings, device, n_threads), n_workers)
        progress.note(
            f"{n_workers} workers share the work, on {len(nodes)} nodes of a Ray cluster, each with {n_threads} threads and a model of at most "
            f"{memory_bytes / 1e9:.2f} GB."
        )
        workers.start()
        try:
            yield workers
        finally:
            workers.close()
