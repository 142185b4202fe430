"""Reader of safetensors files row by row, and writer of their headers at a size known in advance.

A file is the length of its header in 8 bytes, the header as JSON, and the data of the tensors back to back
(https://github.com/huggingface/safetensors). The library validates the header and would then map the whole file into memory; here only the requested
rows are read, so that a model may be larger than memory.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor as Torch

from bitwright.compress.models.float_types import INTEGER_TYPES, LARGEST_INTEGER
from bitwright.compress.models.source import Bytes
from bitwright.errors import ModelError, shown

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_CODES = {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}
WIDTHS = {name: dtype.itemsize for name, dtype in (DTYPES | _CODES).items()}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class StoredTensor:
    """Tensor of a safetensors file, whose data begin at the byte `start` of the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    def rows(self, start: int, stop: int) -> Torch:
        """Read rows `start:stop` as a matrix `(n_rows, n_columns)`, float32; see `stored_rows`."""
        return self.stored_rows(start, stop).float()

    def stored_rows(self, start: int, stop: int) -> Torch:
        """Read rows `start:stop` as a matrix `(n_rows, n_columns)` of the type on disk: the leading dimensions are folded, and a vector is a column.

        Raises:
            ModelError: the weights are not floats of 16 to 64 bits, or cannot be read.
        """
        if self.dtype not in DTYPES:
            raise ModelError(
                f"Weights must be stored as floats of 16 or 32 bits; those of {self.path} are {self.dtype}: convert the model to bfloat16 first."
            )
        width = self.shape[-1] if len(self.shape) > 1 else 1
        return torch.from_numpy(self.read(start * width, stop * width)).view(DTYPES[self.dtype]).reshape(stop - start, width)

    def read(self, start: int, stop: int) -> Bytes:
        """Read the bytes of the weights `start:stop`, counted over the flattened tensor.

        Raises:
            ModelError: the file cannot be read.
        """
        if self.dtype not in WIDTHS:
            known = ", ".join(WIDTHS)
            raise ModelError(f"Weights must be of a known type ({known}); those of {self.path} are {self.dtype}: convert the model.")
        n_bytes = WIDTHS[self.dtype]
        wanted = (stop - start) * n_bytes
        try:
            data: Bytes = np.fromfile(self.path, dtype=np.uint8, count=wanted, offset=self.start + start * n_bytes)
        except OSError as error:
            raise ModelError(f"The weights must be readable; {self.path} is not ({error.strerror}): check its permissions.") from error
        if len(data) != wanted:
            raise ModelError(f"The weights must not change while they are read; {self.path} was truncated: download or save the model again.")
        return data

    def values(self) -> Torch:
        """Read the whole tensor in its shape and dtype.

        Raises:
            ModelError: see `read`.
        """
        return self._values(0, self.n_weights).reshape(self.shape)

    def slab(self, index: int) -> Torch:
        """Read the part at `index` of the first dimension, in its shape and dtype.

        Raises:
            ModelError: see `read`.
        """
        n_values = prod(self.shape[1:])
        return self._values(index * n_values, (index + 1) * n_values).reshape(self.shape[1:])

    def _values(self, start: int, stop: int) -> Torch:
        data = torch.from_numpy(self.read(start, stop))
        return data.view((DTYPES | _CODES)[self.dtype])

    @property
    def n_weights(self) -> int:
        """Number of elements."""
        return prod(self.shape)


class StoredTable(StoredTensor):
    """Table of integers, read as the float32 numbers that they are."""

    def stored_rows(self, start: int, stop: int) -> Torch:
        """Read rows `start:stop` as a matrix `(n_rows, n_columns)`, float32; see `StoredTensor.stored_rows`.

        Raises:
            ModelError: it holds other numbers than integers that float32 has, or cannot be read.
        """
        width = self.shape[-1] if len(self.shape) > 1 else 1
        values = self._values(start * width, stop * width) if self.dtype in INTEGER_TYPES else torch.tensor([LARGEST_INTEGER + 1])
        if values.numel() and int(values.abs().max()) > LARGEST_INTEGER:
            raise ModelError(
                f"A table of a model must hold integers up to {LARGEST_INTEGER:,}; one of {self.path}, of {self.dtype}, does not: download the model "
                "again."
            )
        return values.reshape(stop - start, width).float()


def entries(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a file by name, from its header, which the library validates: no gaps or overlaps, shapes that match the data.

    Raises:
        ModelError: there is no such file, it may not be read, or it is not valid safetensors.
    """
    try:
        if not path.is_file():
            raise ValueError("it is not a regular file")
        with path.open("rb") as file, safe_open(path, framework="numpy"):
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            described = json.loads(file.read(length))
    except PermissionError as error:
        raise ModelError(f"A model's files must be readable; {path} is not ({error.strerror}): check its permissions.") from error
    except (OSError, ValueError, struct.error, SafetensorError) as error:
        size_bytes = path.stat().st_size if path.is_file() else 0
        raise ModelError(
            f"A model's safetensors files must be whole; {path} of {size_bytes:,} bytes is not ({shown(error, 200)}): download or save the model "
            "again."
        ) from error
    begin = _LENGTH.size + length
    tensors = {name: about for name, about in described.items() if name != "__metadata__"}
    return {name: StoredTensor(path, about["dtype"], tuple(about["shape"]), begin + about["data_offsets"][0]) for name, about in tensors.items()}


def header(tensors: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str], n_bytes: int) -> bytes:
    """Build the header of a file of tensors, name → (dtype, shape, bytes), padded with spaces to `n_bytes`.

    Raises:
        ValueError: the header is longer than that.
    """
    described: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape, size_bytes) in tensors.items():
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size_bytes]}
        end += size_bytes
    text = json.dumps(described, separators=(",", ":")).encode()
    room = n_bytes - _LENGTH.size
    if len(text) > room:
        raise ValueError(f"a header of {len(text)} bytes does not fit into {room}")
    return _LENGTH.pack(room) + text.ljust(room)
