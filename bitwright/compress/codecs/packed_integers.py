"""Codec of compressed-tensors' packed integers (`pack-quantized`), and the tensors that a linear layer becomes in such a checkpoint.

    w = (code − zero) · scale,   the scale a bfloat16, the product in float32

as `dequantize` of the compressed-tensors package 0.20.0 computes it in a model loaded in float32, whose loader converts the scales first; loaded in
another type it is the same product, rounded to that type. The measured weights are bit-identical to those it decompresses. Here a row is its codes in
32-bit words, its scales, and a byte for each zero point, so that rows can be read one by one; `layer_tensors` converts them to the tensors of the
checkpoint, where zero points are packed along the rows instead.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress.codecs.byte_rows import byte_parts
from bitwright.compress.codecs.code_bits import packed_codes, unpacked_codes
from bitwright.compress.codecs.codec import LARGEST_SQUARED, Codec, require_quantizable
from bitwright.compress.codecs.grid import Codes, Grid, SymmetricGrid, ZeroPointGrid
from bitwright.compress.codecs.rounding.rounding import Rounding, RoundToNearest, rounded_by
from bitwright.compress.codecs.scales import narrow_scales, wide_scales
from bitwright.compress.models.source import Bytes, Floats, require_size
from bitwright.spaces import ByteFormat, Format, PackedFormat

Layer = Mapping[str, NDArray[np.generic]]
_WORD_BYTES, _SCALE_BYTES = 4, 2
_WEIGHTS_AT_ONCE = 1 << 20


def grid_of(form: PackedFormat) -> Grid:
    """Return the grid of a format."""
    return ZeroPointGrid(form.bits, torch.bfloat16) if form.zero_points else SymmetricGrid(form.bits, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class PackedCodec(Codec):
    """Codec of `PackedFormat`."""

    rounding: Rounding = field(default_factory=RoundToNearest)

    def for_tensor(self, tensor: str, expert: int = 0) -> "PackedCodec":
        """Return the codec with the rounding of one tensor, or of one expert of a stack."""
        return replace(self, rounding=self.rounding.for_tensor(tensor, expert))

    def serves(self, form: Format) -> bool:
        """Return whether `form` is a format of compressed-tensors' packed integers."""
        return isinstance(form, PackedFormat)

    def largest_weight(self, form: Format) -> float:  # noqa: ARG002
        """Return the largest magnitude that bfloat16 scales hold."""
        return LARGEST_SQUARED

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Round `weights` `(n_rows, n_columns)` in groups; return packed words, scales and zero points as bytes `(n_bytes,)`."""
        form = _packed_integers(form)
        require_quantizable(weights, form, importance, most=self.largest_weight(form))
        found = rounded_by(self.rounding, weights, grid_of(form), group=form.group or weights.shape[1], importance=importance)
        words = [packed_words(found.codes[rows], form.bits).view(np.uint8) for rows in _chunks(weights.shape)]
        zeros = [found.placement.anchor.astype(np.uint8)] if form.zero_points else []
        return np.concatenate([np.concatenate(words), narrow_scales(found.placement.scale), *zeros], axis=1).reshape(-1)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Return code minus zero point, times scale, of each group: float32 `(n_rows, n_columns)`."""
        form = _packed_integers(form)
        words, scale, zeros = _parts(packed, form, shape)
        weights = np.empty(shape, dtype=np.float32)
        for rows in _chunks(shape):
            distance = unpacked_words(words[rows], form.bits, shape[1]).astype(np.float32) - _wide(zeros[rows].astype(np.float32), shape[1])
            np.multiply(distance, _wide(wide_scales(scale[rows]), shape[1]), out=weights[rows])
        return weights


def packed_words(codes: Codes, bits: int) -> NDArray[np.int32]:
    """Pack codes `(n, n_codes)`, lowest bits first, into little-endian words `(n, ⌈n_codes · bits / 32⌉)`."""
    found = packed_codes(torch.tensor(codes), bits, lowest_first=True).numpy()
    return np.pad(found, ((0, 0), (0, -found.shape[1] % _WORD_BYTES))).view("<i4")


def unpacked_words(words: NDArray[np.int32], bits: int, n_codes: int) -> Codes:
    """Unpack words to codes `(n, n_codes)`: the inverse of `packed_words`."""
    return unpacked_codes(torch.tensor(words.view(np.uint8)), bits, n_codes, lowest_first=True).numpy()


def layer_tensors(packed: Bytes, form: PackedFormat | ByteFormat, shape: tuple[int, int]) -> Layer:
    """Convert packed rows to the tensors of the layer in the checkpoint, by the last part of their names; bfloat16 scales are 16-bit words.

    `shape` is `(n_rows, n_columns)`.
    """
    if isinstance(form, ByteFormat):
        weight, scales = byte_parts(packed, shape)
        return {"weight": weight, "weight_scale": scales.view("<u2")}
    words, scale, zeros = _parts(packed, form, shape)
    layer: dict[str, NDArray[np.generic]] = {"weight_packed": words, "weight_scale": scale, "weight_shape": np.array(shape, dtype=np.int64)}
    if form.zero_points:
        layer["weight_zero_point"] = np.ascontiguousarray(packed_words(np.ascontiguousarray(zeros.T), form.bits).T)
    return layer


def layer_bytes(layer: Layer, form: PackedFormat | ByteFormat, shape: tuple[int, int]) -> Bytes:
    """Convert the tensors of a layer to packed rows: the inverse of `layer_tensors`."""
    if isinstance(form, ByteFormat):
        return np.concatenate([np.ascontiguousarray(layer[name]).view(np.uint8) for name in ("weight", "weight_scale")], axis=1).reshape(-1)
    n_rows = shape[0]
    parts = [np.ascontiguousarray(layer["weight_packed"]).view(np.uint8), np.ascontiguousarray(layer["weight_scale"]).view(np.uint8)]
    if form.zero_points:
        parts.append(unpacked_words(np.ascontiguousarray(layer["weight_zero_point"].T).view("<i4"), form.bits, n_rows).T)
    return np.concatenate(parts, axis=1).reshape(-1)


def _packed_integers(form: Format) -> PackedFormat:
    if not isinstance(form, PackedFormat):
        raise ValueError(f"{form.name} is no format of packed integers")
    return form


def _parts(packed: Bytes, form: PackedFormat, shape: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[np.uint16], Codes]:
    """Split packed rows into words `(n_rows, n_words)`, scales and zero points, both `(n_rows, n_groups)`."""
    n_groups, n_words = form.n_groups(shape[1]), 4 * form.n_words(shape[1])
    require_size(packed, shape[0] * (n_words + (_SCALE_BYTES + form.zero_points) * n_groups), form.name)
    rows = packed.reshape(shape[0], -1)
    words = np.ascontiguousarray(rows[:, :n_words]).view("<i4")
    scale = np.ascontiguousarray(rows[:, n_words : n_words + _SCALE_BYTES * n_groups]).view("<u2")
    middle = np.full(scale.shape, 1 << (form.bits - 1), dtype=np.uint8)
    return words, scale, rows[:, n_words + _SCALE_BYTES * n_groups :] if form.zero_points else middle


def _chunks(shape: tuple[int, int]) -> Iterator[slice]:
    """Yield ranges of rows, which bounds the memory of unpacked codes."""
    step = max(1, _WEIGHTS_AT_ONCE // shape[1])
    for start in range(0, max(shape[0], 1), step):
        yield slice(start, start + step)


def _wide(values: Floats, n_columns: int) -> Floats:
    """Repeat values per group to one per weight `(n_rows, n_columns)`."""
    return values.repeat(n_columns // values.shape[1], axis=1)
