"""Layouts: how the tensors of one linear layer are stored in a checkpoint of safetensors, which differs from tool to tool."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from bitwright.compress import Bytes, Codec
from bitwright.spaces import Format

#: what a tensor of a safetensors file is: its type and its shape
Described = tuple[str, tuple[int, ...]]


class Layout(ABC):
    """Way to store packed layers. Layers kept as floats are `<layer>.weight` in all layouts.

    `codec` makes and reads the bytes that `arrays` are made of: the rows of the layer one after another, each of the same number of bytes.
    """

    codec: Codec

    @abstractmethod
    def described(self, form: Format, shape: tuple[int, int]) -> Mapping[str, Described]:
        """Return type and shape of the tensors of a layer `(n_rows, n_columns)`, by the last part of their names."""

    @abstractmethod
    def arrays(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Mapping[str, Bytes]:
        """Return the bytes of those tensors, from the packed rows `(n_bytes,)` of the layer."""

    @abstractmethod
    def packed(self, arrays: Mapping[str, Bytes], form: Format, shape: tuple[int, int]) -> Bytes:
        """Return the packed rows `(n_bytes,)` of a layer from its tensors: the inverse of `arrays`."""

    @abstractmethod
    def settings(self, layers: Mapping[str, Format], others: tuple[str, ...]) -> dict[str, Any]:
        """Return the `quantization_config` of `config.json`: the packed layers by name with their formats, and the layers kept as floats."""

    @abstractmethod
    def reader(self, settings: Mapping[str, Any]) -> Callable[[str], Format]:
        """Return a function from the name of a packed layer to its format: the inverse of `settings`.

        Raises:
            ModelError: from the function returned, where no part of the settings is about that layer, or several are.
        """

    def dtype(self, layers: Mapping[str, Format]) -> str:  # noqa: ARG002
        """Return the float type that the model must be loaded in, empty where any will do."""
        return ""
