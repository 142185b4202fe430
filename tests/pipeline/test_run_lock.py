"""Lock of a run folder: a second process is refused."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bitwright.errors import OutputError, RunError
from bitwright.pipeline.run_lock import working_in
from bitwright.whole_files import temporary_name
from bitwright.written_files import LOCK
from tests.sentences import sentence


@contextmanager
def another_process(folder: Path) -> Iterator[int]:
    """A process that works in the folder until the block ends or it is killed."""
    hear, tell = os.pipe()
    child = os.fork()
    if not child:
        with working_in(folder):
            temporary_name(folder / "half").write_bytes(b"half")
            os.write(tell, b"x")
            signal.pause()
        os._exit(0)
    try:
        assert os.read(hear, 1) == b"x"
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(hear)
        os.close(tell)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_another_process_is_told_who_works_there_until_that_is_dead(tmp_path: Path) -> None:
    with another_process(tmp_path) as child:
        with pytest.raises(RunError) as refused, working_in(tmp_path):
            raise AssertionError
        sentence(refused.value, tmp_path, child, socket.gethostname(), "since 2")
        assert any(path.name.endswith(".part") for path in tmp_path.iterdir())
    with working_in(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_this_process_may_enter_again(tmp_path: Path) -> None:
    with working_in(tmp_path / "run"):
        with working_in(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / LOCK).stat().st_size
    assert not (tmp_path / "run" / LOCK).stat().st_size


def test_a_place_that_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError), working_in(tmp_path / "file"):
        raise AssertionError
