"""Pinned weights: float matrices that a post-quantization step computed from calibration text (calibrated routers), stored in one file for `build`.

A safetensors file of float32 matrices under the engine's names.
"""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from bitwright.compress.codecs.pinned_codes import reading_kept
from bitwright.compress.models.checkpoints.safetensors_file import Entry, entries, header
from bitwright.compress.models.source import Floats
from bitwright.errors import PlanError
from bitwright.whole_files import replacing, write_chunks
from bitwright.written_files import digest

_PER_ENTRY, _HEAD = 160, 256  # bytes of the header per tensor besides its name, and of the rest


def keep_weights(path: Path, weights: Mapping[str, Floats]) -> None:
    """Write `weights`, each `(n_rows, n_columns)`, by name.

    Raises:
        OutputError: the file cannot be written.
    """
    described = {name: ("F32", matrix.shape, matrix.nbytes) for name, matrix in weights.items()}
    head = header(described, {}, _HEAD + sum(len(name) + _PER_ENTRY for name in weights))
    with replacing(path) as temporary:
        write_chunks(temporary, chain([head], (matrix.tobytes() for matrix in weights.values())))


def kept_weights(path: Path, sha256: str) -> dict[str, Floats]:
    """Read the weights that `keep_weights` wrote to `path`.

    Raises:
        PlanError: the file is missing, or has another SHA-256.
    """
    if not path.is_file():
        raise PlanError(f"A plan needs the weights that were measured; {path} is not there: put it back, or correct its path in the plan.")
    with reading_kept(path, "weights"):
        is_same = digest(path) == sha256
    if not is_same:
        raise PlanError(f"A plan needs the weights that were measured; {path} has changed since: make the plan again.")
    with reading_kept(path, "weights"):
        return {name: _matrix(name, entry) for name, entry in entries(path).items()}


def _matrix(name: str, entry: Entry) -> Floats:
    n_rows, n_columns = entry.shape
    if entry.dtype != "F32" or min(n_rows, n_columns) < 1:
        raise ValueError(f"{name} is not a matrix of float32")
    matrix: Floats = entry.rows(0, n_rows).numpy()
    return matrix
