"""Split GGUF files as a container: parts of at most so many bytes, under llama.cpp's names and with its keys.

Into how many parts a model is cut depends on the formats chosen, and sizes must add up before they are. So the header of the first part is filled up
with spaces to the most that any choice makes the headers of all parts; that is a few hundred bytes for each.

Names and keys: `llama-gguf-split` of llama.cpp. As there, a tensor that is larger than a part may be has a part of its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFValueType

from bitwright.compress import AT_MOST, COUNT, N_TENSORS, NUMBER, Bytes, GgufSource, KeyValue, Source, named_parts, padded, part_name
from bitwright.engines.container import MODEL, Container, Recipe
from bitwright.engines.llama_cpp.gguf_writer import FilePart, fixed_bytes, recipe_bytes, unpadded_header_bytes, write_part
from bitwright.errors import BrokenPromiseError, UserError
from bitwright.spaces import Tensor
from bitwright.written_files import publishing_together

_FILL = "split.bitwright.fill"
_LEAST = 2**16  # bytes of a part: one that headers hardly count in
_WIDEST = 4  # bytes of a weight in the widest format
_PREAMBLE = 24  # bytes before the metadata of a part
_WIDTHS = {GGUFValueType.UINT16: 2, GGUFValueType.INT32: 4, GGUFValueType.UINT64: 8}


def require_part_bytes(max_bytes: int) -> None:
    """Require that parts of at most `max_bytes` are worth their headers.

    Raises:
        UserError: they are not.
    """
    if max_bytes < _LEAST:
        raise UserError(f"A part of a split file must have room for {_LEAST:,} bytes; --split-max-size is {max_bytes:,}: give more, such as 2GB.")


def split_bytes(source: Source, max_bytes: int, scratch: Path) -> int:
    """Return the bytes that a file of the tensors of `source` takes more in parts of at most `max_bytes`, whatever their formats; 0 for one file.

    Of two parts that follow each other more than `max_bytes` were taken, so their number is limited.
    """
    if not max_bytes:
        return 0
    widest = sum(padded(max(_WIDEST * tensor.n_weights, source.stored_bytes(tensor))) for tensor in source.tensors)
    n_parts = min(len(source.tensors), 4 * (unpadded_header_bytes(source, scratch) + widest) // max_bytes + 2)
    return padded(_entry_bytes(_entries_of_first(0, 0, 0, "")) + 32) + n_parts * padded(_header_of_part() + 32)


def _header_of_part() -> int:
    return _PREAMBLE + _entry_bytes(_entries(0, 0, 0))


def _entries(number: int, count: int, n_tensors: int) -> tuple[KeyValue, ...]:
    said = ((NUMBER, number, GGUFValueType.UINT16), (COUNT, count, GGUFValueType.UINT16), (N_TENSORS, n_tensors, GGUFValueType.INT32))
    return tuple(KeyValue(key, value, kind, kind) for key, value, kind in said)


def _entries_of_first(count: int, n_tensors: int, max_bytes: int, fill: str) -> tuple[KeyValue, ...]:
    own = ((AT_MOST, max_bytes, GGUFValueType.UINT64), (_FILL, fill, GGUFValueType.STRING))
    return _entries(0, count, n_tensors) + tuple(KeyValue(key, value, kind, kind) for key, value, kind in own)


def _entry_bytes(entries: Iterable[KeyValue]) -> int:
    return sum(12 + len(entry.key) + (8 + len(entry.value) if entry.type is GGUFValueType.STRING else _WIDTHS[entry.type]) for entry in entries)


def _info_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor in the list of tensors: name, dimensions, type and place."""
    return 8 + len(tensor.name.encode()) + 4 + 8 * len(tensor.shape) + 4 + 8


@dataclass(frozen=True)
class SplitGgufContainer(Container):
    """Container of a GGUF file in parts of at most `max_bytes`."""

    max_bytes: int

    def fixed_bytes(self, source: Source, decided: Iterable[str], scratch: Path) -> int:
        """Count the bytes of the headers of all parts and of every tensor whose name is not in `decided`, with all padding."""
        return fixed_bytes(source, decided, scratch) + split_bytes(source, self.max_bytes, scratch)

    def write(self, path: Path, recipe: Recipe, packed: Callable[[Tensor], Bytes]) -> Path:
        """Write the parts under temporary names, read them back, and rename all; return the path of the first.

        For `model.gguf` they are `model-00001-of-00003.gguf` and on.
        """
        parts = self._parts(recipe, path.parent)
        names = [path.with_name(part_name(path.stem, i, len(parts))) for i in range(len(parts))]
        with publishing_together(names, MODEL) as files:
            for file, part in zip(files, parts, strict=True):
                write_part(file, recipe, packed, part)
            found, promised = sum(file.stat().st_size for file in files), self._total(recipe, path.parent)
            if found != promised:
                raise BrokenPromiseError(f"The parts must have {promised:,} bytes; they had {found:,}: nothing was kept, please report this.")
        return names[0]

    def files(self, path: Path) -> list[Path]:
        """Return the parts."""
        return named_parts(path)

    def size_bytes(self, path: Path) -> int:
        """Sum the sizes of the parts in bytes."""
        return sum(part.stat().st_size for part in named_parts(path))

    def written(self, path: Path) -> Source:
        """Open the parts as one, by the first."""
        return GgufSource(path)

    def _total(self, recipe: Recipe, scratch: Path) -> int:
        header = padded(unpadded_header_bytes(recipe.source, scratch))
        return header + _data_bytes(recipe, recipe.source.tensors) + split_bytes(recipe.source, self.max_bytes, scratch)

    def _parts(self, recipe: Recipe, scratch: Path) -> list[FilePart]:
        """Cut the tensors, in their order, before a part would have too many bytes, and fill the first part up."""
        tensors, spare = recipe.source.tensors, split_bytes(recipe.source, self.max_bytes, scratch)
        metadata = unpadded_header_bytes(recipe.source, scratch) - sum(map(_info_bytes, tensors))
        cut = self._cut(recipe, padded(metadata + spare + 32))
        first_header = metadata + _entry_bytes(_entries_of_first(0, 0, 0, "")) + sum(map(_info_bytes, cut[0]))
        others = sum(padded(_header_of_part() + sum(map(_info_bytes, part))) for part in cut[1:])
        fill = self._total(recipe, scratch) - _data_bytes(recipe, tensors) - padded(first_header) - others
        first = FilePart(cut[0], _entries_of_first(len(cut), len(tensors), self.max_bytes, " " * fill))
        return [first, *(FilePart(part, _entries(i, len(cut), len(tensors)), carries_metadata=False) for i, part in enumerate(cut[1:], start=1))]

    def _cut(self, recipe: Recipe, first_header: int) -> list[tuple[Tensor, ...]]:
        parts: list[list[Tensor]] = [[]]
        taken = first_header
        for tensor in recipe.source.tensors:
            n_bytes = _info_bytes(tensor) + padded(recipe_bytes(recipe, tensor))
            if parts[-1] and taken + n_bytes > self.max_bytes:
                parts.append([])
                taken = _header_of_part() + 32
            parts[-1].append(tensor)
            taken += n_bytes
        return [tuple(part) for part in parts]


def _data_bytes(recipe: Recipe, tensors: Iterable[Tensor]) -> int:
    return sum(padded(recipe_bytes(recipe, tensor)) for tensor in tensors)
