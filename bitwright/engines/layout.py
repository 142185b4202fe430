"""How one linear layer lies in a checkpoint of safetensors: what differs between the packed checkpoints of one tool and another."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from bitwright.compress import Bytes, Codec
from bitwright.spaces import Format

#: what a tensor of a safetensors file is: its type and its shape
Described = tuple[str, tuple[int, ...]]


class Layout(ABC):
    """A way to keep packed layers. Floats are not its concern: they are kept as `<layer>.weight` everywhere.

    `codec` makes and reads the bytes that `arrays` are made of: the rows of the layer one after another, each of the same number of bytes.
    """

    codec: Codec

    @abstractmethod
    def described(self, form: Format, shape: tuple[int, int]) -> Mapping[str, Described]:
        """The tensors of a layer `(n_rows, n_columns)`, by the last part of their names."""

    @abstractmethod
    def arrays(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Mapping[str, Bytes]:
        """The bytes of those tensors, of the packed rows `(n_bytes,)` of the layer."""

    @abstractmethod
    def packed(self, arrays: Mapping[str, Bytes], form: Format, shape: tuple[int, int]) -> Bytes:
        """The inverse of `arrays`."""

    @abstractmethod
    def settings(self, layers: Mapping[str, Format], others: tuple[str, ...]) -> dict[str, Any]:
        """What `config.json` says under `quantization_config`: the packed layers by name with their formats, and the layers kept as floats."""

    @abstractmethod
    def reader(self, settings: Mapping[str, Any]) -> Callable[[str], Format]:
        """The inverse of `settings`: from the name of a packed layer to its format.

        Raises:
            ModelError: from the function returned, where no part of the settings is about that layer, or several are.
        """

    def dtype(self, layers: Mapping[str, Format]) -> str:  # noqa: ARG002
        """The float type that the model must be loaded in, empty where it may be any."""
        return ""
