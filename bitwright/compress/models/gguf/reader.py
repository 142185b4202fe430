"""GGUF file as a source of tensors.

Layout: `docs/gguf.md` of the ggml repository, through the `gguf` package.
"""

import errno
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType

from bitwright.compress.models.gguf.bounds import ListedTensor, list_tensors, require_bounded
from bitwright.compress.models.gguf.libggml import dequantize
from bitwright.compress.models.gguf.quick_reader import QuickReader
from bitwright.compress.models.gguf.split_files import AT_MOST, N_TENSORS, SPLIT_KEYS, parts_of, require_part
from bitwright.compress.models.model_settings import settings_of_metadata
from bitwright.compress.models.source import NO_SETTINGS, Bytes, Floats, KeyValue, Source
from bitwright.errors import ModelError, shown
from bitwright.spaces import Tensor

logging.getLogger("gguf").setLevel(logging.WARNING)

ALIGNMENT = 32
FILE_TYPE_KEY, ALIGNMENT_KEY = "general.file_type", "general.alignment"
IMATRIX_KEYS = "quantize.imatrix."  # metadata of the importance matrix that the source was quantized with
#: Errors that `sound_reader` raises for a file that is truncated or not GGUF.
UNREADABLE = (OSError, ValueError, LookupError, ArithmeticError, RecursionError, MemoryError)


class GgufSource(Source):
    """GGUF file of any float or quantized type, memory-mapped; `name` is the user's name for the model, that of the file where it is empty.

    Of a split file the first part is given, and all parts are read as one; `split_max_bytes` is how many each has at most, if Bitwright wrote them.

    Raises:
        ModelError: no such file, not GGUF, truncated, or split with a part that is missing or of another file.
    """

    reads_rows = True

    def __init__(self, path: Path, name: str = "", settings: Mapping[str, str] = NO_SETTINGS) -> None:
        """Open the file at `path`; a model called `name` may have further `settings` beside it."""
        if not path.is_file():
            raise ModelError(f"MODEL must be a GGUF file, a model folder or a hub name; there is no file {path}: check the path.")
        first = _Part(path)
        self.parts = parts_of(path, first.known)
        parts = [first, *(_Part(part) for part in self.parts[1:])]
        for number, part in enumerate(parts) if len(parts) > 1 else ():
            require_part(part.path, part.known, number=number, first=first.known)
        self._data = {name: data for part in parts for name, data in part.data.items()}
        if not isinstance(first.known.get("general.architecture"), str) or not self._data:
            raise ModelError(f"A model must name its architecture and hold tensors; {path} does not: choose another GGUF file.")
        self.metadata = tuple(entry for entry in first.metadata if not entry.key.startswith(SPLIT_KEYS))
        self.path, self.name, self.architecture = path, name or str(path), str(first.known["general.architecture"])
        self.tensors = tuple(tensor for part in parts for tensor in part.tensors)
        if len(parts) > 1 and len(self._data) != first.known[N_TENSORS]:
            raise ModelError(
                f"The parts of a split GGUF file must hold the tensors that the first one counts; those of {path} hold {len(self._data)} of "
                f"{shown(first.known[N_TENSORS])}: download them again."
            )
        at_most = first.known.get(AT_MOST, 0)
        self.split_max_bytes = at_most if isinstance(at_most, int) else 0
        self.settings = {**settings, **settings_of_metadata(self.metadata)}

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # nobody sets it
        """Fingerprint over all tensors, computed on first access, which reads the whole file."""
        return fingerprint(self.tensors, self.stored)

    def read(self, tensor: Tensor) -> Floats:
        """Dequantize a tensor to float32 `(n_rows, n_columns)`."""
        return dequantize(self.stored(tensor), tensor.stored, (prod(tensor.shape[:-1]), tensor.shape[-1]))

    def some_rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        """Dequantize the rows from `start` up to `stop`; the others are not read."""
        packed = self.stored(tensor).reshape(prod(tensor.shape[:-1]), -1)[start:stop]
        return dequantize(packed, tensor.stored, (stop - start, tensor.shape[-1]))

    def part(self, tensor: Tensor, expert: int) -> Floats:
        """Dequantize one expert of a stack to float32 `(n_rows, n_columns)`; the others are not read."""
        return dequantize(self.stored_part(tensor, expert), tensor.stored, (tensor.shape[1], tensor.shape[2]))

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the bytes `(n_bytes,)` of a tensor in the file, mapped into memory."""
        return self._data[tensor.name]


class _Part:
    """File of a model: its metadata, its tensors, and their bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            reader = sound_reader(path)
            self.data = {str(t.name): t.data.reshape(-1).view(np.uint8) for t in reader.tensors}
            self.metadata = tuple(_key_values(reader))
        except UNREADABLE as error:
            why = shown(error, 200)
            raise ModelError(f"A GGUF file must be complete and readable; {path} is not ({why}): download or convert it again.") from error
        self.known = {entry.key: entry.value for entry in self.metadata}
        self.tensors = tuple(_described(t.name, t.shape, t.tensor_type) for t in reader.tensors)


def sound_reader(path: Path) -> GGUFReader:
    """Open the file, and require what llama.cpp requires: nonempty tensors, back to back, in this machine's byte order.

    Raises:
        one of UNREADABLE.
    """
    require_bounded(path)
    with np.errstate(over="raise"):
        reader = QuickReader(path)
    if reader.byte_order == "S":
        raise ValueError("its byte order is not this machine's")
    end = reader.data_offset
    for tensor in reader.tensors:
        if not tensor.n_bytes or not len(tensor.shape):
            raise ValueError(f"{tensor.name} holds no weights")
        if tensor.data_offset != end:
            raise ValueError(f"{tensor.name} does not follow right after the tensor before it")
        end += -(-tensor.n_bytes // int(reader.alignment)) * int(reader.alignment)
    return reader


def fingerprint(tensors: Iterable[Tensor], stored: Callable[[Tensor], Bytes]) -> str:
    """Return the SHA-256, in hexadecimal, over names, shapes, formats and contents of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.name} {tensor.shape} {tensor.stored}\n".encode())
        digest.update(np.ascontiguousarray(stored(tensor)).data)
    return digest.hexdigest()


def written_bytes(path: Path) -> int:
    """Return the size of a GGUF file in bytes, padding included, computed from its list of tensors.

    Raises:
        OSError: the file is shorter than that.
    """
    try:
        header, tensors = list_tensors(path)
    except ValueError as error:
        raise OSError(errno.ENOSPC, "it is truncated", str(path)) from error
    return padded(header) + max((tensor.offset + padded(type_bytes(tensor, tensor.kind)) for tensor in tensors), default=0)


def type_bytes(tensor: Tensor | ListedTensor, kind: GGMLQuantizationType) -> int:
    """Return the bytes of a tensor in a type of ggml, without padding."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return tensor.n_weights // block * block_bytes


def _key_values(reader: GGUFReader) -> Iterator[KeyValue]:
    for key, field in reader.fields.items():
        value = field.contents()
        if not key.startswith("GGUF.") and not (field.types[0] is GGUFValueType.ARRAY and not value):
            yield KeyValue(key, value, field.types[0], field.types[-1])


def _described(name: str, shape: Iterable[int], kind: GGMLQuantizationType) -> Tensor:
    return Tensor(str(name), tuple(int(n) for n in reversed(list(shape))), kind.name)


def padded(n_bytes: int) -> int:
    """Return the bytes that a tensor of `n_bytes` occupies in the file, padding included."""
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
