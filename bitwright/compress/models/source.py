"""Interface to a model's tensors in the layout and under the names of the engine.

A source gives for each tensor its shape and stored format, its weights as float32, and its bytes as stored in the file. Everything that is written,
measured or counted starts here.
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
#: settings of a source that is not a user's model
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class KeyValue:
    """Entry of GGUF metadata. `item` is the type of an array's elements, and equals `type` for anything else."""

    key: str
    value: Any
    type: GGUFValueType
    item: GGUFValueType


class Source(ABC):
    """Tensors of a model, in file order.

    `name` is the user's name for the model, `architecture` is GGUF's name of the architecture, or transformers' model type where the tensors are a
    module's, `fingerprint` a SHA-256 in hexadecimal over tensor names, shapes, formats and contents. `settings` are the settings besides the weights
    that change the output, by name (`model_settings.py`).
    """

    name: str
    architecture: str
    fingerprint: str
    settings: Mapping[str, str] = NO_SETTINGS
    metadata: tuple[KeyValue, ...]
    tensors: tuple[Tensor, ...]
    #: whether `some_rows` reads a few rows of a matrix without the others
    reads_rows: bool = False

    @property
    def context_length(self) -> int:
        """Context length of the model in tokens, 0 where nothing says it."""
        return self._said("context_length", 0)

    @property
    def n_experts_used(self) -> int:
        """Number of routed experts that a token uses, 1 where nothing says it."""
        return self._said("expert_used_count", 1)

    def _said(self, key: str, default: int) -> int:
        return next((int(entry.value) for entry in self.metadata if entry.key == f"{self.architecture}.{key}"), default)

    @abstractmethod
    def read(self, tensor: Tensor) -> Floats:
        """Read weights as float32 `(n_rows, n_columns)`: all dimensions but the last are folded into rows."""

    @abstractmethod
    def stored(self, tensor: Tensor) -> Bytes:
        """Return the tensor's bytes `(n_bytes,)` in the format `tensor.stored`, as they stand in a file."""

    def stored_bytes(self, tensor: Tensor) -> int:
        """Return the number of bytes of `stored`, computed from the shape for GGUF's formats."""
        form = GGML_BY_NAME.get(tensor.stored)
        return form.size_bytes(tensor.shape) if form else self.stored(tensor).nbytes

    def some_rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        """Read the rows from `start` up to `stop` of `read`."""
        return self.read(tensor)[start:stop]

    def chosen_rows(self, tensor: Tensor, rows: NDArray[np.int64]) -> Floats:
        """Read the ascending `rows` `(n,)` of `read`."""
        return np.ascontiguousarray(self.read(tensor)[rows])

    def part(self, tensor: Tensor, expert: int) -> Floats:
        """Read the weights of one expert of a stack `(n_experts, n_rows, n_columns)` as float32 `(n_rows, n_columns)`."""
        weights: Floats = self.read(tensor).reshape(tensor.shape)[expert]
        return weights

    def stored_part(self, tensor: Tensor, expert: int) -> Bytes:
        """Return the stored bytes of one expert of a stack."""
        packed: Bytes = self.stored(tensor).reshape(tensor.shape[0], -1)[expert]
        return packed


def require_size(packed: Bytes, n_bytes: int, form: str) -> None:
    """Refuse bytes that are too many or too few before anything is read from them by their place.

    Raises:
        ModelError: they are not `n_bytes`.
    """
    if packed.nbytes != n_bytes:
        raise ModelError(f"A tensor in {form} must have the {n_bytes:,} bytes of its shape; this one has {packed.nbytes:,}: make the file again.")
