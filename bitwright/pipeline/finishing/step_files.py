"""Files of what a run made of calibration text, for steps and for the order of channels: it cannot be reproduced, so it is kept once and a plan names
its file.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from bitwright.compress import Floats, pin_weights, read_pinned_weights
from bitwright.errors import RunError
from bitwright.objectives import Store
from bitwright.pipeline.run import STEPS, Run
from bitwright.written_files import digest


def step_file(run: Run, formats: Mapping[str, str], words: str, *, among: str) -> Path:
    """Return the file of the step `words` of a plan of `formats` (tensor → format); `among` says after what else it was made."""
    name = hashlib.sha256(repr((among, words, sorted(formats.items()))).encode()).hexdigest()[:16]
    return run.folder / STEPS / f"{name}.safetensors"


def kept_matrices(run: Run, path: Path, make: Callable[[], Mapping[str, Floats]]) -> dict[str, Floats]:
    """Return the matrices of a step's file by name, made and kept first where they are not there or not as they were."""
    if not _is_as_kept(run.store, path):
        _keep(run.store, path, make())
    return read_pinned_weights(path, run.store.text(_key(path)))


def lasting_matrices(store: Store, path: Path, make: Callable[[], Mapping[str, Floats]]) -> dict[str, Floats]:
    """Return the matrices of a file by name that the rest of a run goes by, made and kept where they never were.

    Raises:
        RunError: the file is gone or was changed.
    """
    if not store.has_text(_key(path)):
        _keep(store, path, make())
    if not _is_as_kept(store, path):
        raise RunError(
            f"A run continues only with the scores of channels that it began with; {path} is gone or changed: put it back, or run the search again "
            "with another --out."
        )
    return read_pinned_weights(path, store.text(_key(path)))


def require_kept(run: Run, path: Path) -> Path:
    """Return the file of a step as it was measured.

    Raises:
        RunError: it is gone or was changed.
    """
    if not _is_as_kept(run.store, path):
        raise RunError(
            f"The weights of a step depend on calibration text and cannot be reproduced; {path} is gone or changed: run the search again with "
            "another --out."
        )
    return path


def _keep(store: Store, path: Path, made: Mapping[str, Floats]) -> None:
    pin_weights(path, made)
    store.put_text(_key(path), digest(path))


def _is_as_kept(store: Store, path: Path) -> bool:
    return store.has_text(_key(path)) and path.is_file() and digest(path) == store.text(_key(path))


def _key(path: Path) -> str:
    """Return the key of the stored SHA-256 of a step's file."""
    return f"{STEPS}/{path.name}"
