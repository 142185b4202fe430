"""Where a model's tensors come from, in the layout and under the names of the engine.

A source answers three questions about a tensor: which shape and stored format it has, what its weights are as float32, and what its bytes are
as they stand in the file. Everything that is written, measured or counted starts here.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from bitwright.errors import ModelError
from bitwright.spaces import GGML_BY_NAME, Tensor

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
#: of a source that is no user's model
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class KeyValue:
    """One entry of GGUF metadata. `item` is the type of an array's elements, and equals `type` for anything else."""

    key: str
    value: Any
    type: GGUFValueType
    item: GGUFValueType


class Source(ABC):
    """A model as tensors in file order.

    `name` is what the user called it, `architecture` is GGUF's name of the architecture, `fingerprint` a SHA-256 in hexadecimal over tensor
    names, shapes, formats and contents. `settings` is what else changes what the model computes, by name (`model_settings.py`).
    """

    name: str
    architecture: str
    fingerprint: str
    settings: Mapping[str, str] = NO_SETTINGS
    metadata: tuple[KeyValue, ...]
    tensors: tuple[Tensor, ...]

    @abstractmethod
    def read(self, tensor: Tensor) -> Floats:
        """Weights as float32 `(n_rows, n_columns)`: all dimensions but the last are folded into rows."""

    @abstractmethod
    def stored(self, tensor: Tensor) -> Bytes:
        """The tensor's bytes `(n_bytes,)` in the format `tensor.stored`, as they stand in a file."""

    def stored_bytes(self, tensor: Tensor) -> int:
        """Their number, counted from the shape where the format is one of GGUF's."""
        form = GGML_BY_NAME.get(tensor.stored)
        return form.size_bytes(tensor.shape) if form else self.stored(tensor).nbytes

    def part(self, tensor: Tensor, expert: int) -> Floats:
        """Weights of one expert of a stack `(n_experts, n_rows, n_columns)` as float32 `(n_rows, n_columns)`."""
        weights: Floats = self.read(tensor).reshape(tensor.shape)[expert]
        return weights

    def stored_part(self, tensor: Tensor, expert: int) -> Bytes:
        """The bytes of one expert of a stack."""
        packed: Bytes = self.stored(tensor).reshape(tensor.shape[0], -1)[expert]
        return packed


def require_size(packed: Bytes, n_bytes: int, form: str) -> None:
    """Refuse bytes that are too many or too few before anything is read from them by their place.

    Raises:
        ModelError: they are not `n_bytes`.
    """
    if packed.nbytes != n_bytes:
        raise ModelError(f"A tensor in {form} must have the {n_bytes:,} bytes of its shape; this one has {packed.nbytes:,}: make the file again.")
