"""Native checkpoints with one format in a block of the model, of 8 or 4 bits: for kernels that unpack a block at a time."""

from dataclasses import replace
from typing import ClassVar

from bitwright.engines import NATIVE, NativeEngine
from bitwright.spaces import Fused, by_layer


class BlockEngine(NativeEngine):
    """Engine of native checkpoints with a target of its own; reading, checking and loading are those of the native engine."""

    file_name: ClassVar[str] = "model-blocks"

    @property
    def codecs(self) -> tuple[str, ...]:
        """Names of the roundings that this engine's files may be made with."""
        return ("rtn", "hqq")


FORMATS = tuple(form for form in NATIVE.formats if form.scheme and form.scheme.bits in (8, 4))
ONE_FORMAT = Fused("block", by_layer, "the matrices of a block are one decision", "a choice of this example")
BLOCKS = BlockEngine(replace(NATIVE, name="blocks", formats=FORMATS, rules=(), fused=(ONE_FORMAT,)))
