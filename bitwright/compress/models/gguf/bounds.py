"""Bounds check of a GGUF file's header, before a library reads it, and its list of tensors.

The `gguf` package trusts every count: an array of 10¹² entries in a file of 161 bytes keeps it building empty views forever. Here each count and
length is first compared with the remaining bytes. Layout: `docs/gguf.md` of the ggml repository; limits are those of ggml's own reader where it has
any. Of a tokenizer the package makes objects, 4 s for 50,000 tokens, which a list of tensors does not need.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType, GGUFValueType

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_DIMENSIONS = 4  # GGML_MAX_DIMS
_NAME = 2**16  # bytes of a key or of a tensor's name
_VALUES = 2**22  # entries of all arrays together, each of which costs the library some hundred bytes; a model with a million tokens has three million
_WIDTHS = {
    **dict.fromkeys((GGUFValueType.UINT8, GGUFValueType.INT8, GGUFValueType.BOOL), 1),
    **dict.fromkeys((GGUFValueType.UINT16, GGUFValueType.INT16), 2),
    **dict.fromkeys((GGUFValueType.UINT32, GGUFValueType.INT32, GGUFValueType.FLOAT32), 4),
    **dict.fromkeys((GGUFValueType.UINT64, GGUFValueType.INT64, GGUFValueType.FLOAT64), 8),
}
_ENTRY, _INFO = 8 + 4, 8 + 4 + 4 + 8  # minimum bytes of a metadata entry and of a tensor description


def require_bounded(path: Path) -> None:
    """Require that the counts and lengths in a GGUF header fit into the file.

    Raises:
        OSError: it cannot be read.
        ValueError: the file is not GGUF in this machine's byte order, or a count or length in its header is out of bounds.
    """
    list_tensors(path)


@dataclass(frozen=True)
class ListedTensor:
    """Tensor in the list of a GGUF file, `offset` bytes after the first tensor."""

    name: str
    n_weights: int
    kind: GGMLQuantizationType
    offset: int


def list_tensors(path: Path) -> tuple[int, list[ListedTensor]]:
    """Return the bytes of the header of a GGUF file, without the padding after it, and its tensors.

    Raises:
        OSError: it cannot be read.
        ValueError: see `require_bounded`, or a type is not known.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Head(data).walk()


class _Head:
    """Cursor over the header of a GGUF file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at, self._left_of_arrays = data, 0, _VALUES

    def walk(self) -> tuple[int, list[ListedTensor]]:
        """Walk over the metadata and the tensor descriptions; return the bytes up to the end of the header, and the tensors."""
        if self._take(4, "magic") != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        if (version := self._number("I", "version")) not in _VERSIONS:
            raise ValueError(f"its version is {version}, or its byte order is not this machine's")
        n_tensors = self._number("Q", "number of tensors")
        n_entries = self._number("Q", "number of entries")
        self._require_left(n_entries * _ENTRY + n_tensors * _INFO, f"{n_entries:,} entries and {n_tensors:,} tensors")
        for _ in range(n_entries):
            self._text("key", at_most=_NAME)
            self._pass_value(self._type())
        tensors = [self._tensor() for _ in range(n_tensors)]
        return self._at, tensors

    def _pass_value(self, kind: GGUFValueType) -> None:
        if kind is GGUFValueType.STRING:
            self._text("text")
        elif kind is GGUFValueType.ARRAY:
            self._pass_array(self._type())
        else:
            self._take(_WIDTHS[kind], "value")

    def _pass_array(self, kind: GGUFValueType) -> None:
        length = self._number("Q", "length of an array")
        if kind is GGUFValueType.ARRAY:
            raise ValueError("it holds an array of arrays")
        self._require_left(length * _WIDTHS.get(kind, 8), f"an array of {length:,} entries")
        self._left_of_arrays -= length
        if self._left_of_arrays < 0:
            raise ValueError(f"its arrays have more than {_VALUES:,} entries")
        if kind is GGUFValueType.STRING:
            for _ in range(length):
                self._text("text")
        else:
            self._at += length * _WIDTHS[kind]

    def _tensor(self) -> ListedTensor:
        name = self._text("name", at_most=_NAME).decode(errors="replace")
        n_dimensions = self._number("I", "number of dimensions")
        if n_dimensions > _DIMENSIONS:
            raise ValueError(f"a tensor has {n_dimensions:,} dimensions")
        n_weights = 1
        for _ in range(n_dimensions):
            n_weights *= self._number("Q", "dimension")
        if n_weights > 8 * len(self._data):  # no format has less than a bit for a weight
            raise ValueError(f"a tensor of {n_weights:,} weights is beyond its end")
        kind = GGMLQuantizationType(self._number("I", "format"))
        offset = self._number("Q", "place of a tensor")
        if offset > len(self._data):
            raise ValueError("a tensor lies beyond its end")
        return ListedTensor(name, n_weights, kind, offset)

    def _text(self, what: str, *, at_most: int = 2**63) -> bytes:
        length = self._number("Q", f"length of a {what}")
        self._require_left(length, f"a {what} of {length:,} bytes")
        if length > at_most:
            raise ValueError(f"a {what} has {length:,} bytes")
        self._at += length
        return self._data[self._at - length : self._at]

    def _type(self) -> GGUFValueType:
        return GGUFValueType(self._number("I", "type"))

    def _number(self, code: str, what: str) -> int:
        number: int
        (number,) = struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}"), what))
        return number

    def _take(self, n_bytes: int, what: str) -> bytes:
        self._require_left(n_bytes, f"a {what}")
        self._at += n_bytes
        return self._data[self._at - n_bytes : self._at]

    def _require_left(self, n_bytes: int, what: str) -> None:
        if n_bytes > len(self._data) - self._at:
            raise ValueError(f"{what} is beyond its end")
