"""Lock of a run folder: one process works in it at a time.

The lock is an `flock` on a file in the folder, so it ends with its process, however that ends; the file's content only names the holder in messages.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from bitwright.errors import OutputError, RunError
from bitwright.pipeline.run import CODES, LEVELS, REORDERED, SHIPPED, STEPS
from bitwright.whole_files import output_errors, remove_leftovers
from bitwright.written_files import LOCK


@dataclass(frozen=True)
class Holder:
    """Process that holds the lock: its machine, its id, and the time it started by that machine's clock."""

    host: str
    pid: int
    since: str


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Create a run folder and keep other processes out of it inside the `with` block; this process may enter again.

    Raises:
        RunError: another process works there.
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"The run folder must be writable; {folder} is not ({error.strerror or error}): choose another --out.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            _require_own(descriptor, folder, error)
            yield
            return
        except OSError:  # a file system without locks
            yield
            return
        with output_errors(folder):
            _write(descriptor, json.dumps(asdict(_this_process())))
        for path in (folder, *(inner for name in (LEVELS, REORDERED, SHIPPED, CODES, STEPS) for inner in _folders(folder / name))):
            remove_leftovers(path)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _require_own(descriptor: int, folder: Path, error: OSError) -> None:
    text = os.pread(descriptor, 4096, 0).decode(errors="replace")
    this = _this_process()
    try:
        holder = Holder(**json.loads(text))
    except (ValueError, TypeError):  # the holder has not written its entry yet
        holder = Holder("a machine", 0, "this moment")
    if (holder.host, holder.pid) != (this.host, this.pid):
        raise RunError(
            f"One process works in a run folder at a time; another works in {folder} (process {holder.pid} on {holder.host}, since {holder.since}): "
            "wait for it or end it, or use another --out."
        ) from error


def _this_process() -> Holder:
    return Holder(socket.gethostname(), os.getpid(), datetime.now().astimezone().isoformat(" ", "seconds"))


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def _folders(folder: Path) -> list[Path]:
    """Return a folder and its subfolders; empty if it does not exist."""
    return [folder, *(path for path in folder.iterdir() if path.is_dir())] if folder.is_dir() else []
