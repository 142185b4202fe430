"""Files and folders that are whole or not there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write a file or folder to: renamed to `path` when the block ends, removed when anything is raised in it.

    A folder that is there already is replaced by a folder.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        if part.is_dir() and path.is_dir():
            shutil.rmtree(path)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            discard(part)
        raise


def discard(path: Path) -> None:
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
