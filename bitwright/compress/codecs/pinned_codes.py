"""Pinned codes: packed tensors that depend on calibration text (GPTQ) and cannot be reproduced, stored in one file for `build`.

A safetensors file of bytes (U8), one tensor for each pair of a tensor and its format.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from bitwright.compress.codecs.level_file import read_level
from bitwright.compress.codecs.packed_cache import level_path
from bitwright.compress.models.checkpoints.safetensors_file import entries, header
from bitwright.compress.models.source import Bytes
from bitwright.errors import ModelError, PlanError, RunError
from bitwright.whole_files import replacing, write_chunks
from bitwright.written_files import digest

_CHUNK_BYTES = 1 << 24
_UNREADABLE = (ModelError, OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, MemoryError)
_PER_ENTRY, _HEAD = 160, 256  # bytes of the header per tensor besides its name, and of the rest


def keep_codes(path: Path, folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Copy the packed tensors of `pairs` (tensor, format) from `folder` into one file.

    Raises:
        RunError: one is missing or was changed.
        OutputError: the file cannot be written.
    """
    tensors = {_key(*pair): _packed(folder, *pair) for pair in pairs}
    described = {key: ("U8", (packed.nbytes,), packed.nbytes) for key, packed in tensors.items()}
    head = header(described, {}, _HEAD + sum(len(key) + _PER_ENTRY for key in tensors))
    with replacing(path) as temporary:
        write_chunks(temporary, chain([head], (packed.data for packed in tensors.values())))


class KeptCodes:
    """Packed tensors that `keep_codes` wrote to `path`.

    Raises:
        PlanError: the file is missing, or has another SHA-256.
    """

    def __init__(self, path: Path, sha256: str) -> None:
        if not path.is_file():
            raise PlanError(f"A plan needs the codes that were measured; {path} is not there: put it back, or correct its path in the plan.")
        self._path = path
        with reading_kept(path, "codes"):
            is_same = digest(path) == sha256
        if not is_same:
            raise PlanError(f"A plan needs the codes that were measured; {path} has changed since: make the plan again.")
        with reading_kept(path, "codes"):
            self._entries = entries(path)

    def packed(self, tensor: str, form: str) -> Bytes:
        """Return the bytes of a tensor in its format.

        Raises:
            PlanError: the file does not have them, or they cannot be read.
        """
        entry = self._entries.get(_key(tensor, form))
        if entry is None:
            raise PlanError(f"A plan with pinned codes may name only those; {tensor} in {form} is not among them: make the plan again.")
        with reading_kept(self._path, "codes"):
            if entry.dtype != "U8" or len(entry.shape) != 1:
                raise ValueError(f"{tensor} is not a row of bytes")
            found = entry.read(0, entry.n_weights)
            if found.nbytes != entry.n_weights:
                raise ValueError(f"{tensor} is truncated")
        return found


@contextmanager
def reading_kept(path: Path, what: str) -> Iterator[None]:
    """Turn any error of reading a file that a plan needs into a PlanError.

    Raises:
        PlanError: the block raised an error.
    """
    try:
        yield
    except _UNREADABLE as error:
        raise PlanError(f"A plan needs the {what} that were measured; {path} does not hold them: make the plan again.") from error


def _key(tensor: str, form: str) -> str:
    return f"{tensor}.{form}"


def _packed(folder: Path, tensor: str, form: str) -> Bytes:
    path = level_path(folder, tensor, form)
    packed = read_level(path, key=path.name)
    if packed is None:
        raise RunError(
            f"These codes depend on calibration text (GPTQ) and cannot be reproduced, so a plan needs the run's own; {folder} lacks "
            f"{path.name}, or it was changed: run the search again with another --out."
        )
    return packed
