"""Weights that a step after the formats made anew, kept in one file for whoever builds the model: a text had a part in them, as in GPTQ's codes.

A safetensors file of float32 matrices under the engine's names.
"""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from bitwright.compress.safetensors_file import entries, header
from bitwright.compress.source import Floats
from bitwright.errors import ModelError, PlanError
from bitwright.whole_files import replacing, write_chunks
from bitwright.written_files import digest

_PER_ENTRY, _HEAD = 160, 256  # bytes of the header for each tensor beside its name, and for everything else


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
    """What `keep_weights` wrote to `path`.

    Raises:
        PlanError: there is no such file, or it is another than the one with this SHA-256.
    """
    if not path.is_file():
        raise PlanError(f"A plan needs the weights that were measured; {path} is not there: put it back, or correct its path in the plan.")
    if digest(path) != sha256:
        raise PlanError(f"A plan needs the weights that were measured; {path} has changed since: make the plan again.")
    try:
        return {name: entry.rows(0, entry.shape[0]).numpy() for name, entry in entries(path).items()}
    except ModelError as error:
        raise PlanError(f"A plan needs the weights that were measured; {path} does not hold them: make the plan again.") from error
