"""Files and folders that are whole or not there, also after a full disk, a kill or a loss of power.

What is written gets a name of this process beside its place (`.name.bitwright-HOST-PID-RANDOM.part`), is flushed, synced and closed, and is renamed
when nothing failed. What a process that was killed left there is known by its number, and removed by whoever writes in that folder next.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bitwright.errors import OutputError

_CHUNK_BYTES = 1 << 24
_LONGEST = 100  # characters of the name that its temporary one repeats: file systems end names at 255 bytes
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # what file systems say whose folders cannot be synced


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write a file or folder to: synced and renamed to `path` when the block ends, removed when anything is raised.

    Raises:
        OutputError: the place cannot be written or the disk is full.
    """
    with refusing(path), beside(path) as part:
        yield part
        sync(part)
        part.replace(path)
        sync_folder(path.parent)


@contextmanager
def caching(path: Path) -> Iterator[Path]:
    """The same for what is made again where it is missing: a loss of power may lose the name, and never what the name stands for."""
    with refusing(path), beside(path) as part:
        yield part
        sync(part)
        part.replace(path)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Tell in a sentence that `path` cannot be written, and why.

    Raises:
        OutputError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"What is written needs a place and room; {path} cannot be written ({error.strerror or error}): choose another place or make room."
        ) from error


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, whose folder is made; what is left under it is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from error
    part = temporary_name(path)
    try:
        yield part
    finally:
        with suppress(OSError):
            discard(part)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process has, nor this one for anything else."""
    return path.with_name(f".{path.name[:_LONGEST].encode()[:_LONGEST].decode(errors='ignore')}.{_tag()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file from its pieces, and hold it to their bytes: a full disk, a quota and a network tell of what they lost when a file is synced or
    closed, or not at all.

    Raises:
        OSError: not every byte is there.
    """
    n_bytes = 0
    with path.open("wb") as file:
        for chunk in chunks:
            n_bytes += memoryview(chunk).nbytes
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    require_size(path, n_bytes)


def require_size(path: Path, n_bytes: int) -> None:
    """Refuse a file that was written and has not so many bytes.

    Raises:
        OSError: it has others.
    """
    found = path.stat().st_size
    if found != n_bytes:
        raise OSError(errno.ENOSPC, f"{found:,} of {n_bytes:,} bytes were kept", str(path))


def reserve(descriptor: int, n_bytes: int) -> None:
    """Have room on the disk for so many bytes of a file, all of them zero.

    Raises:
        OSError: there is none.
    """
    if sys.platform == "linux":
        os.posix_fallocate(descriptor, 0, n_bytes)
        return
    for start in range(0, n_bytes, _CHUNK_BYTES):
        os.pwrite(descriptor, bytes(min(_CHUNK_BYTES, n_bytes - start)), start)


def sync(path: Path) -> None:
    """Have a file, or a folder with all that is in it, on the disk.

    Raises:
        OSError: it does not get there.
    """
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            sync(inner)
        sync_folder(path)
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk, where its file system can do that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove from a folder what processes of this machine that are no more had begun to write there."""
    left = re.compile(rf"\..*\.{_tag()}-(\d+)-[0-9a-f]{{8}}\.part", re.DOTALL)
    with suppress(OSError):
        for path in list(folder.iterdir()):
            found = left.fullmatch(path.name)
            if found and not _is_running(int(found[1])):
                discard(path)


def regular(path: Path) -> Path:
    """The same path, held to a file: a pipe or a device may have no end, or never begin.

    Raises:
        OSError: it is no file, or there is none.
    """
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "It is a pipe or a device, not a file", str(path))
    return path


def _tag() -> str:
    """Stands for this machine in temporary names: numbers of processes are its own."""
    return f"bitwright-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}"


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user
        return True
    return True
