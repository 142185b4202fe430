"""Bound on the bytes of a folder of files that can be made again: what was used longest ago is removed first.

The order of use is that of this process; files of earlier processes come before it, by the time at which they were written. A file that is mapped
into memory stays readable after it is removed.
"""

from collections import OrderedDict
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from bitwright.whole_files import discard


class DiskBound:
    """Bound of `n_bytes` on the files of `folder`, and of the folders in it, that are called by one of the `tensors` and a format; others are left
    alone. The file made last stays, whatever its size.
    """

    def __init__(self, folder: Path, n_bytes: int, *, tensors: Container[str]) -> None:
        self._folder, self._n_bytes, self._lock = folder, n_bytes, Lock()
        found = [(path, path.stat()) for path in folder.rglob("*") if path.name.rpartition(".")[0] in tensors and path.is_file()]
        self._sizes = OrderedDict((path, about.st_size) for path, about in sorted(found, key=lambda each: each[1].st_mtime_ns))

    def used(self, path: Path) -> None:
        """Count a file as used now."""
        with self._lock:
            if path in self._sizes:
                self._sizes.move_to_end(path)

    def made(self, path: Path) -> None:
        """Count a file that was just written, and remove those used longest ago until the rest is within the bound."""
        with self._lock:
            self._sizes.pop(path, None)
            self._sizes[path] = path.stat().st_size
            while len(self._sizes) > 1 and sum(self._sizes.values()) > self._n_bytes:
                self._remove(next(iter(self._sizes)))

    def keep(self, paths: Iterable[Path]) -> None:
        """Remove all files but those of `paths`, and folders that are empty then."""
        kept = set(paths)
        with self._lock:
            gone = [path for path in self._sizes if path not in kept]
            for path in gone:
                self._remove(path)
            for folder in {path.parent for path in gone} - {self._folder}:
                with suppress(OSError):  # others' files are in it
                    folder.rmdir()

    def _remove(self, path: Path) -> None:
        """Remove a file; one that cannot be removed is no longer counted."""
        del self._sizes[path]
        with suppress(OSError):
            discard(path)
