"""Checks that outputs can be written, made before any work."""

import os
from pathlib import Path

from bitwright.errors import OutputError


def require_folder(path: Path) -> None:
    """Raise if a folder cannot be written or created.

    Raises:
        OutputError: see above.
    """
    there = _nearest(path)
    if not os.path.isdir(there):  # noqa: PTH112  # False, not an error, if a name is too long
        raise OutputError(f"Results must be writable to {path}, a folder; {there} is a file: choose another --out.")
    _require_open(there, path)


def require_file(path: Path) -> None:
    """Raise if a file cannot be written at its path.

    Raises:
        OutputError: see above.
    """
    if os.path.isdir(path):  # noqa: PTH112
        raise OutputError(f"The file must be writable to {path}; it is not (that is a folder): name a file in it.")
    require_place(path)


def require_place(path: Path) -> None:
    """Raise if a file or folder cannot be created at its path.

    Raises:
        OutputError: see above.
    """
    there = _nearest(path.parent)
    if not os.path.isdir(there):  # noqa: PTH112
        raise OutputError(f"Results must be writable to {path}; they are not ({there} is a file): choose another place.")
    _require_open(there, path)


def _nearest(path: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    return next((part for part in (path, *path.parents) if os.path.lexists(part)), Path())


def _require_open(folder: Path, path: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"Results must be writable to {path}; the folder {folder} cannot be written: choose another place or another --out.")
