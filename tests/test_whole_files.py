"""Files that are whole or not there."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bitwright.errors import OutputError
from bitwright.whole_files import atomic_write, caching, discard, regular, remove_leftovers, require_size, reserve, temporary_name, write_chunks
from tests.sentences import sentence


def test_the_name_is_taken_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("older")
    with atomic_write(path) as part:
        part.write_text("newer")
        assert path.read_text() == "older"
        assert part.parent == tmp_path
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "newer"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_when_the_block_raises(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("older")

    def interrupted() -> None:
        with atomic_write(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "older"


def test_what_the_system_refuses_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError) as refused, atomic_write(tmp_path / "file" / "a.txt") as part:
        part.write_text("never")
    sentence(refused.value, tmp_path / "file" / "a.txt", os.strerror(errno.ENOTDIR))


def test_two_writers_of_one_name_do_not_share_another(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as one, atomic_write(tmp_path / "a") as other:
        one.write_text("one")
        other.write_text("other")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "one"


@pytest.mark.parametrize("name", ["n" * 255, "名" * 85])
def test_a_name_may_be_as_long_as_the_file_system_has_them(name: str, tmp_path: Path) -> None:
    with atomic_write(tmp_path / name) as part:
        part.write_text("text")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_a_dead_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from bitwright.whole_files import temporary_name; print(temporary_name(Path(sys.argv[1])))"
    left = Path(subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True, text=True, check=True).stdout.strip())
    left.mkdir()
    (left / "half").write_bytes(b"half")
    mine = temporary_name(tmp_path / "a")
    mine.write_bytes(b"mine")
    (tmp_path / ".a.part").write_bytes(b"a stranger's")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / ".a.part", mine])


# --- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this user may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    if sys.platform != "linux" or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("only root makes a file system of a few kilobytes")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("writing", [atomic_write, caching])
def test_a_full_disk_is_told_and_keeps_what_was_there(small_disk: Path, writing: Callable[[Path], AbstractContextManager[Path]]) -> None:
    path = small_disk / "a"
    with atomic_write(path) as part:
        write_chunks(part, [b"older"])
    for n_chunks in range(1, 40, 3):
        whole = 4096 * n_chunks
        try:
            with writing(path) as part:
                write_chunks(part, (bytes(4096) for _ in range(n_chunks)))
            assert path.stat().st_size == whole
        except OutputError as error:
            sentence(error, path, os.strerror(errno.ENOSPC))
            assert path.read_bytes() in (b"older", bytes(path.stat().st_size))
        assert [file.name for file in small_disk.iterdir()] == ["a"]
    assert path.stat().st_size < whole


def test_room_that_is_not_there_is_told_before_it_is_used(small_disk: Path) -> None:
    with (small_disk / "a").open("w+b") as file:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            reserve(file.fileno(), 1 << 20)
        reserve(file.fileno(), 4096)
        assert (small_disk / "a").stat().st_size >= 4096


def test_bytes_that_went_missing_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    require_size(tmp_path / "a", 3)
    with pytest.raises(OSError, match="3 of 4 bytes"):
        require_size(tmp_path / "a", 4)


# --- what is no file


def test_neither_a_pipe_nor_a_device_nor_a_folder_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "missing"):
        with pytest.raises(OSError, match=r"pipe|device|directory"):
            regular(path)
    (tmp_path / "a").write_bytes(b"")
    assert regular(tmp_path / "a") == tmp_path / "a"


def test_a_link_to_a_folder_goes_and_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    discard(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
