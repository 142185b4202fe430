"""Folder of a worker in `TMPDIR`, removed at its end; that of a worker that was killed is removed by the next one on its machine.

Each holds a locked file. The lock ends with its process, however that ends, so a folder whose lock is free belongs to nobody.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX, _LOCK = "bitwright-worker-", ".lock"


@contextmanager
def worker_folder() -> Iterator[Path]:
    """Make a folder for as long as the `with` block lasts, and remove those that killed workers have left."""
    _remove_left(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name, (Path(name) / f"{_LOCK}.new").open("w") as lock:
        with suppress(OSError):  # on a file system without locks it stays if the worker is killed
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Path(lock.name).rename(Path(name) / _LOCK)  # locked before anyone finds it
        yield Path(name)


def _remove_left(place: Path) -> None:
    """Remove the folders of workers whose process has ended."""
    for lock in place.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), lock.open("r+") as held:  # another user's, or one that is being removed, is left alone
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
