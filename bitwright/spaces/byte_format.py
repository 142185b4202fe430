"""Formats of one byte a weight, as compressed-tensors checkpoints have them (`int-quantized`, `float-quantized`), and their exact bytes.

Layout: `compressors/naive_quantized` of the compressed-tensors package (0.20.0). A layer is two tensors: the bytes, and a bfloat16 scale a row.
"""

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

from bitwright.spaces.format import Format

_SCALE_BYTES = 2
LARGEST_FLOAT8 = 448.0  # of E4M3 without infinities (Micikevicius et al., "FP8 formats for deep learning", 2022)


@dataclass(frozen=True)
class ByteFormat(Format):
    """Signed integers of 8 bits (`int`) or floats of 8 (`float`: E4M3, without infinities), with a scale for each row.

    Where `input_steps` is not 0, the engine rounds what goes into the layer to the same type, token by token: the largest magnitude of a token is
    that many steps. It is for kernels that multiply bytes with bytes; what it costs in quality is far more than what the weights cost
    (`docs/targets.md`), and the bytes are no fewer. So these formats are offered only where they are named.
    """

    name: str
    kind: Literal["int", "float"]
    input_steps: float = 0.0
    needs_importance: bool = False

    only_named: ClassVar[bool] = True

    @property
    def bits_per_weight(self) -> float:
        """See `Format.bits_per_weight`; the scale of a whole row is not counted."""
        return 8.0

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether this is a matrix, or a stack of them."""
        return len(shape) > 1 and shape[-1] > 0

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """See `Format.size_bytes`."""
        if not self.fits(shape):
            raise ValueError(f"{self.name} stores matrices, and {shape} is none")
        return prod(shape[:-1]) * (shape[-1] + _SCALE_BYTES)


def byte_formats(int8_input_steps: float) -> tuple[ByteFormat, ...]:
    """Those of an engine that rounds the largest magnitude of a token to `int8_input_steps` where inputs are integers."""
    return (
        ByteFormat("W8A8_ROW", "int", int8_input_steps),
        ByteFormat("FP8_ROW", "float"),
        ByteFormat("FP8A8_ROW", "float", LARGEST_FLOAT8),
    )
