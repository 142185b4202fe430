"""GGUF file as a source of tensors.

Layout: `docs/gguf.md` of the ggml repository, through the `gguf` package.
"""

import errno
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType

from bitwright.compress.models.gguf.bounds import require_bounded
from bitwright.compress.models.gguf.libggml import dequantize
from bitwright.compress.models.model_settings import settings_of_metadata
from bitwright.compress.models.source import Bytes, Floats, KeyValue, Source
from bitwright.errors import ModelError, shown
from bitwright.spaces import Tensor

logging.getLogger("gguf").setLevel(logging.WARNING)

ALIGNMENT = 32
FILE_TYPE_KEY, ALIGNMENT_KEY = "general.file_type", "general.alignment"
IMATRIX_KEYS = "quantize.imatrix."  # metadata of the importance matrix that the source was quantized with
#: Errors that `sound_reader` raises for a file that is truncated or not GGUF.
UNREADABLE = (OSError, ValueError, LookupError, ArithmeticError, RecursionError, MemoryError)


class GgufSource(Source):
    """GGUF file of any float or quantized type, memory-mapped.

    Raises:
        ModelError: no such file, not GGUF, truncated, or one part of a split file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ModelError(f"MODEL must be a GGUF file, a model folder or a hub name; there is no file {path}: check the path.")
        try:
            reader = sound_reader(path)
            tensors = {str(t.name): t.data.reshape(-1).view(np.uint8) for t in reader.tensors}
            self.metadata = tuple(_key_values(reader))
        except UNREADABLE as error:
            why = shown(error, 200)
            raise ModelError(f"A GGUF file must be complete and readable; {path} is not ({why}): download or convert it again.") from error
        known = {entry.key: entry.value for entry in self.metadata}
        if not isinstance(known.get("general.architecture"), str) or not tensors:
            raise ModelError(f"A model must name its architecture and hold tensors; {path} does not: choose another GGUF file.")
        if (parts := known.get("split.count", 1)) not in (0, 1):
            raise ModelError(
                f"A model must be one GGUF file (split.count 1); {path} is one of {shown(parts)}: merge them with `llama-gguf-split --merge`."
            )
        self.path, self.name, self.architecture = path, str(path), str(known["general.architecture"])
        self.tensors = tuple(_described(t.name, t.shape, t.tensor_type) for t in reader.tensors)
        self._data = tensors
        self.settings = settings_of_metadata(self.metadata)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # nobody sets it
        """Fingerprint over all tensors, computed on first access, which reads the whole file."""
        return fingerprint(self.tensors, self.stored)

    def read(self, tensor: Tensor) -> Floats:
        """Dequantize a tensor to float32 `(n_rows, n_columns)`."""
        return dequantize(self.stored(tensor), tensor.stored, (prod(tensor.shape[:-1]), tensor.shape[-1]))

    def part(self, tensor: Tensor, expert: int) -> Floats:
        """Dequantize one expert of a stack to float32 `(n_rows, n_columns)`; the others are not read."""
        return dequantize(self.stored_part(tensor, expert), tensor.stored, (tensor.shape[1], tensor.shape[2]))

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the bytes `(n_bytes,)` of a tensor in the file, mapped into memory."""
        return self._data[tensor.name]


def sound_reader(path: Path) -> GGUFReader:
    """Open the file, and require what llama.cpp requires: nonempty tensors, back to back, in this machine's byte order.

    Raises:
        one of UNREADABLE.
    """
    require_bounded(path)
    with np.errstate(over="raise"):
        reader = GGUFReader(path)
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
        reader = GGUFReader(path)
    except (ValueError, LookupError) as error:
        raise OSError(errno.ENOSPC, "it is truncated", str(path)) from error
    return max((tensor.data_offset + padded(tensor.n_bytes) for tensor in reader.tensors), default=reader.data_offset)


def type_bytes(tensor: Tensor, kind: GGMLQuantizationType) -> int:
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
