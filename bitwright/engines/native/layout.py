"""Native layout: a packed layer is one tensor, `<layer>.weight`, the very bytes of the codec.

As long as that, a vector where transformers expects a matrix: who loads such a checkpoint without `import bitwright.native` gets an error, and never
a model of random weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitwright.compress import Bytes, Codec, integer_codec
from bitwright.engines.layout import Described, Layout
from bitwright.engines.native.config import native_formats, native_settings
from bitwright.errors import ModelError
from bitwright.spaces import Absence, Format

_PART = "weight"


@dataclass(frozen=True)
class NativeLayout(Layout):
    """`IntegerFormat` in a checkpoint."""

    codec: Codec = field(default_factory=integer_codec)

    def described(self, form: Format, shape: tuple[int, int]) -> Mapping[str, Described]:
        """Return the type and shape of the packed rows; nothing for a dropped layer."""
        return {} if isinstance(form, Absence) else {_PART: ("U8", (form.size_bytes(shape),))}

    def arrays(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Mapping[str, Bytes]:
        """Return the packed rows as one tensor of bytes `(n_bytes,)`."""
        return dict.fromkeys(self.described(form, shape), packed)

    def packed(self, arrays: Mapping[str, Bytes], form: Format, shape: tuple[int, int]) -> Bytes:
        """Return the packed rows `(n_bytes,)`; none for a dropped layer."""
        return arrays[_PART] if self.described(form, shape) else np.empty(0, dtype=np.uint8)

    def settings(self, layers: Mapping[str, Format], others: tuple[str, ...]) -> dict[str, Any]:  # noqa: ARG002
        """Return a `quantization_config` from layer to format; layers kept as floats are not listed."""
        return native_settings(layers)

    def reader(self, settings: Mapping[str, Any]) -> Callable[[str], Format]:
        """Return a function from the name of a packed layer to its format.

        Raises:
            ModelError: see `native_formats`.
        """
        formats = native_formats(settings) if settings else {}

        def form_of(layer: str) -> Format:
            if layer not in formats:
                raise ModelError(f"Every packed layer must have a format in config.json; {layer} has none: build the checkpoint again.")
            return formats[layer]

        return form_of
