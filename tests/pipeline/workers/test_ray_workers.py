"""A Ray cluster of two nodes on this machine: the same plan, also where a node dies; and sentences where workers cannot be had."""

import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import bitwright as bw
from bitwright.errors import LibraryError, RunError, UserError
from bitwright.pipeline.workers.bench import Bench, Identity, identity_of
from bitwright.pipeline.workers.cluster import Cluster
from bitwright.pipeline.workers.opening import workers_on
from bitwright.pipeline.workers.ray_cluster import room_for
from bitwright.pipeline.workers.ray_workers import RayWorkers
from bitwright.pipeline.workers.workers import Task
from bitwright.progress import Silent
from tests.fits import Fit
from tests.pipeline.workers.test_one_plan import stored
from tests.runs import BRIEF, plan_without_paths, small
from tests.sentences import sentence

GIB = 1 << 30


@dataclass(frozen=True)
class Killing(Task[int]):
    """Ends its worker's process the first `n_times`, which are files in a folder."""

    folder: Path
    n_times: int

    place, n_steps = 0, 1

    def do(self, bench: Bench) -> int:
        died = len([*self.folder.iterdir()])
        if died < self.n_times:
            (self.folder / f"{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return died


@dataclass(frozen=True)
class Doubled(Task[int]):
    number: int
    place, n_steps = -1, 1

    def do(self, bench: Bench) -> int:
        if self.number < 0:
            raise UserError("Numbers are doubled from 0 up; this one is less: give another.")
        return 2 * self.number


class Counting:
    """Result that counts how often it is pickled on its way."""

    def __init__(self, n_pickled: int = 0) -> None:
        self.n_pickled = n_pickled

    def __reduce__(self) -> tuple[type["Counting"], tuple[int]]:
        self.n_pickled += 1
        return Counting, (self.n_pickled,)


@dataclass(frozen=True)
class Counted(Task[Counting]):
    place, n_steps = -1, 1

    def do(self, bench: Bench) -> Counting:
        return Counting()


class Removing(Silent):
    """Progress that removes a node as soon as a stage has begun."""

    def __init__(self, title: str, remove: Callable[[], None]) -> None:
        self._title, self._remove, self.n_removed = title, remove, 0

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        def advance(n: int) -> None:
            if title == self._title and n and not self.n_removed:
                self.n_removed = 1
                self._remove()

        yield advance


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes, none of whose processes outlives the tests."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'bitwright[ray]'")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patched.setenv("RAY_AUTH_MODE", "disabled")
        cluster_utils = pytest.importorskip("ray.cluster_utils")
        options = {"num_cpus": 2, "memory": 8 * GIB, "object_store_memory": 100 << 20}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
        try:
            yield cluster, cluster.add_node(**{**options, "num_cpus": 1})
        finally:
            cluster.shutdown()


@pytest.mark.slow
def test_workers_do_tasks_in_order_and_those_that_die_are_replaced(
    two_nodes: Any, llama_96: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at one opening, which is what takes time: results pickled once, a user's error, one death, one death too many, and another version."""
    (tmp_path / "once").mkdir()
    (tmp_path / "always").mkdir()
    cluster, _ = two_nodes
    with workers_on(Cluster(cluster.address, 2), small(llama_96), tmp_path, device="cpu", progress=Silent()) as workers:
        assert isinstance(workers, RayWorkers)
        assert [*workers.each([Doubled(i) for i in range(9)])] == [2 * i for i in range(9)]
        before = workers.moved_bytes
        assert [found.n_pickled for found in workers.each([Counted(), Counted()])] == [1, 1]
        once = len(pickle.dumps(Counting(), protocol=pickle.HIGHEST_PROTOCOL))
        assert workers.moved_bytes == (before[0], before[1] + 2 * once)
        with pytest.raises(UserError) as failed:
            [*workers.each([Doubled(1), Doubled(-1)])]
        assert str(failed.value).startswith("Numbers are doubled")
        assert [*workers.each([Doubled(1), Killing(tmp_path / "once", 1), Doubled(3)])] == [2, 1, 6]
        assert workers.n_deaths == 1
        # one death ends a run at a bound of one, as it did not above: each new worker imports everything, which would take long for three
        monkeypatch.setattr("bitwright.pipeline.workers.ray_workers._DEATHS", 1)
        with pytest.raises(RunError) as failed_often:
            [*workers.each([Killing(tmp_path / "always", 99)])]
        assert "2 died" in sentence(failed_often.value)
        with pytest.raises(RunError) as other:
            workers.require(Identity({**identity_of("abc").values, "bitwright": "0.0.9"}))
        assert "not 0.0.9" in sentence(other.value)


@pytest.mark.slow
def test_a_fit_loses_a_node_and_has_the_same_plan(two_nodes: Any, fit_of_folder: Fit, tmp_path: Path) -> None:
    cluster, node = two_nodes
    progress = Removing("Measuring sensitivities by gradient", lambda: cluster.remove_node(node))
    at = Cluster(cluster.address, 2)
    found = bw.fit(fit_of_folder.settings, fit_of_folder.budget, tmp_path / "out", by=BRIEF, progress=progress, cluster=at)
    assert progress.n_removed
    assert stored(tmp_path / "out") == stored(fit_of_folder.folder)
    assert plan_without_paths(tmp_path / "out" / "plan.json") == plan_without_paths(fit_of_folder.folder / "plan.json")
    assert found.model.read_bytes() == fit_of_folder.fitted.model.read_bytes()


def test_workers_have_room_by_memory_and_by_places() -> None:
    nodes = [{"CPU": 4, "memory": 10.0 * GIB}, {"CPU": 1, "memory": 10.0 * GIB, "GPU": 2}, {"memory": 1.0}]
    assert room_for(nodes, 0, n_gpus=0, memory_bytes=3 * GIB) == 2  # one on each node
    assert room_for(nodes, 4, n_gpus=0, memory_bytes=3 * GIB) == 4  # three by memory, one by its CPU
    assert room_for(nodes, 0, n_gpus=1, memory_bytes=3 * GIB) == 2
    for n, gpus, words in ((5, 0, "at most --workers 4"), (3, 1, "at most --workers 2"), (1, 3, "add nodes")):
        with pytest.raises(UserError) as failed:
            room_for(nodes, n, n_gpus=gpus, memory_bytes=3 * GIB)
        assert words in sentence(failed.value)


@pytest.mark.parametrize(
    ("address", "n_workers", "n_gpus", "words"), [("here", 0, 0, "HOST:PORT"), ("auto", -1, 0, "--workers -1"), ("", 2, 0, "--ray auto")]
)
def test_options_that_name_no_cluster_are_refused(address: str, n_workers: int, n_gpus: int, words: str) -> None:
    with pytest.raises(UserError) as failed:
        bw.pipeline.cluster_of(address, n_workers, n_gpus)
    assert words in sentence(failed.value)


def test_without_ray_a_cluster_is_refused_before_the_model_is_loaded(llama_96: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LibraryError) as failed:
        bw.pipeline.search(small(llama_96), tmp_path, cluster=Cluster("auto"))
    assert "bitwright[ray]" in sentence(failed.value)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_a_sentence(llama_96: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'bitwright[ray]'")
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # nothing listens on it
        at = Cluster(f"127.0.0.1:{unheard.getsockname()[1]}")
        with pytest.raises(UserError) as failed, workers_on(at, small(llama_96), tmp_path, device="cpu", progress=Silent()):
            pass
    assert "reachable" in sentence(failed.value)


def test_roundings_that_need_activations_are_not_divided(llama_96: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as failed, workers_on(Cluster("auto"), small(llama_96, codec="obs"), tmp_path, device="cpu", progress=Silent()):
        pass
    assert "obs" in sentence(failed.value)
