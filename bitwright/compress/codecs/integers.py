"""Codec of integers in groups: bit-packed codes, with a scale and a minimum in half precision for each group of a row.

    w ≈ minimum + scale · code;  of one bit without a minimum, w ≈ ± scale

Codes, scales and minima come from the rounding method, by default round to nearest between the least and the largest weight of each group. Scale and
minimum are rounded to half precision before the codes are computed, so that decoding is exact. A row is its bit-packed codes, then its scales, then
its minima: rows can be read one by one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from bitwright.compress.codecs.code_bits import packed_codes
from bitwright.compress.codecs.codec import Codec, require_quantizable
from bitwright.compress.codecs.expansion import GROUPED, Grouped, expanded
from bitwright.compress.codecs.grid import Grid, MinimumGrid, SignGrid
from bitwright.compress.codecs.rounding.rounding import Rounded, Rounding, RoundToNearest, rounded_by
from bitwright.compress.models.source import Bytes, Floats, require_size
from bitwright.spaces import Format, SignFormat

_WEIGHTS_AT_ONCE = 1 << 20  # small enough for a processor's caches


@dataclass(frozen=True, eq=False)
class IntegerCodec(Codec):
    """Codec of `IntegerFormat` and `SignFormat`."""

    rounding: Rounding = field(default_factory=RoundToNearest)

    def for_tensor(self, tensor: str, expert: int = 0) -> "IntegerCodec":
        """Return the codec with the rounding of one tensor, or of one expert of a stack."""
        return replace(self, rounding=self.rounding.for_tensor(tensor, expert))

    def serves(self, form: Format) -> bool:
        """Return whether `form` is integers in groups with a scale."""
        return isinstance(form, GROUPED)

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Round `weights` `(n_rows, n_columns)` in groups; return packed codes, scales and minima, row by row, as bytes `(n_bytes,)`."""
        form = _integers(form)
        require_quantizable(weights, form, importance, most=self.largest_weight(form))
        found = rounded_by(self.rounding, weights, grid_of(form), group=form.group or weights.shape[1], importance=importance)
        stored = [packed_rows(found, rows, form) for rows in _chunks(weights.shape)]
        return np.concatenate(stored).reshape(-1) if stored else np.empty(0, dtype=np.uint8)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Return code times scale plus minimum of each group, float32 `(n_rows, n_columns)`."""
        form = _integers(form)
        require_size(packed, form.size_bytes(shape), form.name)
        weights = np.empty(shape, dtype=np.float32)
        stored = packed.reshape(shape[0], -1)
        for rows in _chunks(shape):
            weights[rows] = expanded(torch.tensor(stored[rows]), form, shape[1]).numpy()
        return weights


def grid_of(form: Grouped) -> Grid:
    """Return the grid of a format."""
    return SignGrid() if isinstance(form, SignFormat) else MinimumGrid(form.bits)


def _integers(form: Format) -> Grouped:
    if not isinstance(form, GROUPED):
        raise ValueError(f"{form.name} is no format of packed integers in groups")
    return form


def _chunks(shape: tuple[int, int]) -> Iterator[slice]:
    step = max(1, _WEIGHTS_AT_ONCE // shape[1])
    for start in range(0, shape[0], step):
        yield slice(start, start + step)


def packed_rows(found: Rounded, rows: slice, form: Grouped) -> Bytes:
    """Pack rows to bytes `(n_rows, bytes of a row)`."""
    codes, placement = found.codes[rows], found.placement[rows]
    stored = (placement.anchor,) if isinstance(form, SignFormat) else (placement.scale, placement.anchor)
    halves = (np.ascontiguousarray(part, dtype=np.float16).view(np.uint8) for part in stored)
    return np.concatenate([packed_codes(torch.tensor(codes), form.bits).numpy(), *halves], axis=1)
