"""Formats of one byte per weight of compressed-tensors checkpoints (`int-quantized`, `float-quantized`), and their exact size.

Layout: `compressors/naive_quantized` of the compressed-tensors package (0.20.0). A layer is two tensors: the bytes, and one bfloat16 scale per row.
"""

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

from bitwright.spaces.format import Format, Scheme

_SCALE_BYTES = 2
LARGEST_FLOAT8 = 448.0  # of E4M3 without infinities (Micikevicius et al., "FP8 formats for deep learning", 2022)


@dataclass(frozen=True)
class ByteFormat(Format):
    """Signed 8-bit integers (`int`) or 8-bit floats (`float`: E4M3, without infinities), with one scale per row.

    Where `input_steps` is not 0, the engine also quantizes the layer's inputs to the same type, dynamically per token: the largest magnitude of a
    token becomes that many steps. Kernels that multiply bytes with bytes need it; it costs far more quality than quantizing the weights does
    (`docs/targets.md`) and saves no bytes, so these formats are offered only where the menu names them.
    """

    name: str
    kind: Literal["int", "float"]
    input_steps: float = 0.0
    needs_importance: bool = False

    only_named: ClassVar[bool] = True

    @property
    def bits_per_weight(self) -> float:
        """Return 8; the scale of a row is not counted."""
        return 8.0

    @property
    def scheme(self) -> Scheme:
        """Return the scheme of 8-bit integers or floats, one scale a row."""
        return Scheme(8, 0, symmetric=True, floats=self.kind == "float", inputs=self.input_steps > 0)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` is that of a matrix, or of a stack of matrices."""
        return len(shape) > 1 and shape[-1] > 0

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of codes and scales of a matrix or stack."""
        if not self.fits(shape):
            raise ValueError(f"{self.name} stores matrices, and {shape} is none")
        return prod(shape[:-1]) * (shape[-1] + _SCALE_BYTES)


def byte_formats(int8_input_steps: float) -> tuple[ByteFormat, ...]:
    """Return the one-byte formats of an engine that maps the largest magnitude of a token to `int8_input_steps` where it quantizes inputs to INT8."""
    return (
        ByteFormat("W8A8_ROW", "int", int8_input_steps),
        ByteFormat("FP8_ROW", "float"),
        ByteFormat("FP8A8_ROW", "float", LARGEST_FLOAT8),
    )
