"""The container of safetensors, read row by row and written to a size that is known beforehand.

A file is the length of its header in 8 bytes, the header as JSON, and the tensors one after another (https://github.com/huggingface/safetensors).
The library maps whole files into memory; here only the rows that are asked for are read, so that a model larger than memory can be worked on.
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
from torch import Tensor as Torch

from bitwright.compress.models.source import Bytes
from bitwright.errors import ModelError

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "I8": 1, "F8_E4M3": 1}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: `start` is the byte in the file at which its data begin."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    def rows(self, start: int, stop: int) -> Torch:
        """Rows `start:stop` of the tensor as a matrix `(n_rows, n_columns)`, float32: the leading dimensions are folded, and a vector is a column.

        Raises:
            ModelError: the weights are no floats of 16 to 64 bits, or cannot be read.
        """
        if self.dtype not in DTYPES:
            raise ModelError(
                f"Weights must be stored as floats of 16 or 32 bits; those of {self.path} are {self.dtype}: convert the model to bfloat16 first."
            )
        width = self.shape[-1] if len(self.shape) > 1 else 1
        return torch.from_numpy(self.read(start * width, stop * width)).view(DTYPES[self.dtype]).reshape(stop - start, width).float()

    def read(self, start: int, stop: int) -> Bytes:
        """The bytes of the weights `start:stop`, counted over the whole tensor.

        Raises:
            ModelError: the file cannot be read.
        """
        n_bytes = WIDTHS[self.dtype]
        try:
            return np.fromfile(self.path, dtype=np.uint8, count=(stop - start) * n_bytes, offset=self.start + start * n_bytes)
        except OSError as error:
            raise ModelError(f"The weights must be readable; {self.path} is not ({error.strerror}): check its permissions.") from error

    @property
    def n_weights(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def entries(path: Path) -> dict[str, Entry]:
    """The tensors of a file by name, from its header alone.

    Raises:
        ModelError: there is no such file, or it is no safetensors file, or its end is missing.
    """
    try:
        with path.open("rb") as file:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            size_bytes = path.stat().st_size
            if length > size_bytes:
                raise ValueError("its header is cut off")
            header = json.loads(file.read(length))
        begin = _LENGTH.size + length
        tensors = {name: about for name, about in header.items() if name != "__metadata__"}
        end = begin + max((about["data_offsets"][1] for about in tensors.values()), default=0)
        if end > size_bytes:
            raise ValueError(f"it has {size_bytes:,} of {end:,} bytes")
        return {name: Entry(path, about["dtype"], tuple(about["shape"]), begin + about["data_offsets"][0]) for name, about in tensors.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"A model's safetensors files must be whole; {path} is not ({error}): download or save the model again.") from error


def header(tensors: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str], n_bytes: int) -> bytes:
    """The head of a file of tensors, name → (dtype, shape, bytes), filled up with spaces to `n_bytes`.

    Raises:
        ValueError: it is longer than that.
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
