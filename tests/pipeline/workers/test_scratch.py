"""Folders of workers: gone at the end, or when the next worker starts if theirs was killed."""

import os
import signal
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from bitwright.pipeline.workers.scratch import worker_folder
from tests.processes import process


def be_killed(_: Connection, place: Path) -> None:
    """Write into a worker's folder in `place`, and end by SIGKILL."""
    tempfile.tempdir = str(place)
    with worker_folder() as folder:
        (folder / "packed").write_text("")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_folder_is_removed_at_the_end_and_not_by_other_workers(place: Path) -> None:
    with worker_folder() as first:
        (first / "packed").write_text("")
        with worker_folder() as second:
            assert first != second
            assert (first / "packed").exists()
        assert not second.exists()
        assert [*place.iterdir()] == [first]
    assert not [*place.iterdir()]


@pytest.mark.slow
def test_the_next_worker_removes_the_folder_of_one_that_was_killed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = place / "workers"  # apart from the folder of what processes are forked from
    workers.mkdir()
    with process(be_killed, workers) as killed:
        assert killed.exit_code(60) == -signal.SIGKILL
    monkeypatch.setattr(tempfile, "tempdir", str(workers))
    (left,) = workers.iterdir()
    assert (left / "packed").exists()
    with worker_folder() as folder:
        assert [*workers.iterdir()] == [folder]


def test_folders_that_are_not_a_workers_are_left_alone(place: Path) -> None:
    (place / "bitwright-worker-mine").mkdir()
    (place / "other").mkdir()
    with worker_folder():
        pass
    assert sorted(path.name for path in place.iterdir()) == ["bitwright-worker-mine", "other"]
