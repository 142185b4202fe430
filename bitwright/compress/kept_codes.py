"""Packed tensors in one file: codes that cannot be made anew, because a text had a part in them, kept for whoever builds the model.

A safetensors file of bytes (U8), one tensor for each pair of a tensor and its format.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from bitwright.compress.levels import level_path
from bitwright.compress.safetensors_file import entries, header
from bitwright.compress.source import Bytes
from bitwright.errors import ModelError, PlanError, RunError
from bitwright.whole_files import replacing, write_chunks
from bitwright.written_files import digest

_CHUNK_BYTES = 1 << 24
_PER_ENTRY, _HEAD = 160, 256  # bytes of the header for each tensor beside its name, and for everything else


def keep_codes(path: Path, folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Copy the packed levels of `pairs` (tensor, format) that lie in `folder` into one file.

    Raises:
        RunError: some are not there.
        OutputError: the file cannot be written.
    """
    files = {_key(*pair): level_path(folder, *pair) for pair in pairs}
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing:
        raise RunError(
            f"Codes that a text had a part in are made once, so a plan needs the run's own; {folder} has no {missing[0]} ({len(missing)} such): "
            "run the search again with another --out."
        )
    described = {key: ("U8", (file.stat().st_size,), file.stat().st_size) for key, file in files.items()}
    head = header(described, {}, _HEAD + sum(len(key) + _PER_ENTRY for key in files))
    with replacing(path) as temporary:
        write_chunks(temporary, chain([head], *map(_chunks, files.values())))


class KeptCodes:
    """What `keep_codes` wrote to `path`.

    Raises:
        PlanError: there is no such file, or it is another than the one with this SHA-256.
    """

    def __init__(self, path: Path, sha256: str) -> None:
        if not path.is_file():
            raise PlanError(f"A plan needs the codes that were measured; {path} is not there: put it back, or correct its path in the plan.")
        if digest(path) != sha256:
            raise PlanError(f"A plan needs the codes that were measured; {path} has changed since: make the plan again.")
        try:
            self._entries = entries(path)
        except ModelError as error:
            raise PlanError(f"A plan needs the codes that were measured; {path} does not hold them: make the plan again.") from error

    def packed(self, tensor: str, form: str) -> Bytes:
        """The bytes of a tensor in its format.

        Raises:
            PlanError: they are not among those that were kept.
        """
        entry = self._entries.get(_key(tensor, form))
        if entry is None:
            raise PlanError(f"A plan whose codes are kept may name only those; {tensor} in {form} is not among them: make the plan again.")
        return entry.read(0, entry.n_weights)


def _key(tensor: str, form: str) -> str:
    return f"{tensor}.{form}"


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            yield chunk
