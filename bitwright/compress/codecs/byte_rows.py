"""Codec of 8-bit weights as compressed-tensors stores them: one byte per weight, and a bfloat16 scale per row.

    w = byte · scale,   the byte a signed integer or a float of 8 bits (E4M3), the product in float32

as `dequantize` of the compressed-tensors package 0.20.0 computes it in a model loaded in float32. Here a row is its bytes followed by its scale.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from bitwright.compress.codecs.codec import LARGEST_SQUARED, Codec, require_quantizable
from bitwright.compress.codecs.grid import Float8Grid, SymmetricGrid
from bitwright.compress.codecs.rounding.rounding import Rounded, Rounding, RoundToNearest, rounded_by, values
from bitwright.compress.codecs.scales import narrow_scales, wide_scales
from bitwright.compress.models.source import Bytes, Floats, require_size
from bitwright.spaces import ByteFormat, Format

_SIGN = np.uint8(0x80)  # integers are stored as their code with this bit flipped, so that the middle code is zero
_SCALE_BYTES = 2


def byte_grid(form: ByteFormat) -> SymmetricGrid | Float8Grid:
    """Return the grid of a row."""
    return SymmetricGrid(8, torch.bfloat16) if form.kind == "int" else Float8Grid(torch.bfloat16)


@dataclass(frozen=True, eq=False)
class ByteCodec(Codec):
    """Codec of `ByteFormat`."""

    rounding: Rounding = field(default_factory=RoundToNearest)

    def serves(self, form: Format) -> bool:
        """Return whether `form` is 8-bit integers or floats in rows."""
        return isinstance(form, ByteFormat)

    def largest_weight(self, form: Format) -> float:  # noqa: ARG002
        """Return the largest magnitude that bfloat16 scales hold."""
        return LARGEST_SQUARED

    def for_tensor(self, tensor: str, expert: int = 0) -> "ByteCodec":
        """Return the codec with the rounding of one tensor, or of one expert of a stack."""
        return replace(self, rounding=self.rounding.for_tensor(tensor, expert))

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Round `weights` `(n_rows, n_columns)` with one scale a row; return codes and scales, row by row, as bytes `(n_bytes,)`."""
        form = _bytes(form)
        require_quantizable(weights, form, importance, most=self.largest_weight(form))
        found = rounded_by(self.rounding, weights, byte_grid(form), group=weights.shape[1], importance=importance)
        return np.concatenate([_turned(found.codes, form), narrow_scales(found.placement.scale)], axis=1).reshape(-1)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Multiply codes by the scale of their row: float32 `(n_rows, n_columns)`."""
        form = _bytes(form)
        require_size(packed, form.size_bytes(shape), form.name)
        codes, scales = byte_parts(packed, shape)
        grid = byte_grid(form)
        return values(Rounded(_turned(codes, form), grid.scaled(wide_scales(scales.view("<u2")))), grid, shape[1])


def byte_parts(packed: Bytes, shape: tuple[int, int]) -> tuple[Bytes, Bytes]:
    """Split packed rows into the bytes of the weights `(n_rows, n_columns)` and of the scales `(n_rows, 2)`, as the checkpoint stores them."""
    rows = packed.reshape(shape[0], shape[1] + _SCALE_BYTES)
    return np.ascontiguousarray(rows[:, : shape[1]]), np.ascontiguousarray(rows[:, shape[1] :])


def _bytes(form: Format) -> ByteFormat:
    if not isinstance(form, ByteFormat):
        raise ValueError(f"{form.name} is no format of one byte a weight")
    return form


def _turned(codes: Bytes, form: ByteFormat) -> Bytes:
    turned: Bytes = codes ^ _SIGN if form.kind == "int" else codes
    return turned
