"""Atomic writes of files and folders, which survive a full disk, a kill or a loss of power.

A result is written under a temporary name in the same folder (`.name.bitwright-HOST-PID-RANDOM.part`), synced, closed, and renamed if nothing failed.
Temporary files of dead processes are recognised by their process id, and removed by the next write in that folder.
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
_LONGEST = 100  # characters of the name repeated in the temporary one: file systems limit names to 255 bytes
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # errors of file systems that cannot sync folders


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` to write a file or folder to, which is synced and renamed to `path` when the block ends, and removed if it
    raises.

    Raises:
        OutputError: the path cannot be written, or the disk is full.
    """
    with refusing(path), beside(path) as part:
        yield part
        sync(part)
        part.replace(path)
        sync_folder(path.parent)


@contextmanager
def caching(path: Path) -> Iterator[Path]:
    """Write a cache file atomically, without syncing the rename: after a loss of power it may be missing, but not truncated."""
    with refusing(path), beside(path) as part:
        yield part
        sync(part)
        part.replace(path)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a sentence that `path` cannot be written, and why.

    Raises:
        OutputError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"An output path must be writable and the disk must have room; {path} cannot be written ({error.strerror or error}): "
            "choose another path or free some space."
        ) from error


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, whose folder is created; anything left under the name is removed."""
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
    """Return a unique temporary name beside `path`."""
    return path.with_name(f".{path.name[:_LONGEST].encode()[:_LONGEST].decode(errors='ignore')}.{_tag()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file from chunks and check its size after syncing: full disks, quotas and network file systems may lose data and report it late or
    never.

    Raises:
        OSError: bytes are missing.
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
    """Require that a written file has `n_bytes`.

    Raises:
        OSError: it has another size.
    """
    found = path.stat().st_size
    if found != n_bytes:
        raise OSError(errno.ENOSPC, f"{found:,} of {n_bytes:,} bytes were written", str(path))


def reserve(descriptor: int, n_bytes: int) -> None:
    """Reserve disk space for `n_bytes` of a file, all of them zero.

    Raises:
        OSError: there is not enough.
    """
    if sys.platform == "linux":
        os.posix_fallocate(descriptor, 0, n_bytes)
        return
    for start in range(0, n_bytes, _CHUNK_BYTES):
        os.pwrite(descriptor, bytes(min(_CHUNK_BYTES, n_bytes - start)), start)


def sync(path: Path) -> None:
    """Sync a file, or a folder with all its contents, to the disk.

    Raises:
        OSError: it cannot be synced.
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
    """Sync the directory entries of a folder, if its file system supports that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a file, or a folder with all its contents."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of this machine's dead processes from a folder."""
    left = re.compile(rf"\..*\.{_tag()}-(\d+)-[0-9a-f]{{8}}\.part", re.DOTALL)
    with suppress(OSError):
        for path in list(folder.iterdir()):
            found = left.fullmatch(path.name)
            if found and not _is_running(int(found[1])):
                discard(path)


def regular(path: Path) -> Path:
    """Return the path if it is a regular file: a pipe or a device may never end or never begin.

    Raises:
        OSError: it is not a regular file, or does not exist.
    """
    kind = path.stat().st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "It is a pipe or a device, not a file", str(path))
    return path


def _tag() -> str:
    """Return an id of this machine for temporary names, since process ids are unique on one machine only."""
    return f"bitwright-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}"


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # a process of another user
        return True
    return True
