"""Dequantization of the native formats in torch, on any device, used by their codecs and by native checkpoints alike.

A row is its codes, bit-packed with the highest bit first, then its scales and its minima in half precision. Multiplication and addition are separate
operations in float32: a fused multiply-add would round differently on some devices. A sparse row is that of its kept weights, then their positions.
A row with a pair of low rank is that of its matrix, then its codes of the left factor and their scale; those of the columns come after all rows.
Products of codes are sums of integers below 2^24, so that they are exact in whatever order a device adds them.
"""

import torch
from torch import Tensor as Torch

from bitwright.compress.codecs.code_bits import unpacked_codes
from bitwright.compress.codecs.positions import kept_places
from bitwright.compress.models.float_types import FLOAT_TYPES
from bitwright.spaces import BlockFormat, Format, IntegerFormat, Pattern, RankFormat, SignFormat, SparseFormat

Grouped = IntegerFormat | SignFormat
GROUPED = (IntegerFormat, SignFormat)


def stored_type(form: Format) -> torch.dtype:
    """Return the dtype in which a matrix of this format is stored: bytes, or the float type itself.

    Raises:
        ValueError: native checkpoints do not support the format.
    """
    if isinstance(form, (*GROUPED, SparseFormat, RankFormat)):
        return torch.uint8
    if isinstance(form, BlockFormat) and form.name in FLOAT_TYPES:
        return FLOAT_TYPES[form.name]
    raise ValueError(f"{form.name} is not a format of a native checkpoint")


def expanded_rows(stored: Torch, form: Format, shape: tuple[int, int], wanted: slice | Torch) -> Torch:
    """Dequantize the rows `wanted` of a matrix of `shape` `(n_rows, n_columns)` as it is `stored`, its bytes `(n_bytes,)` or floats of that shape:
    `(n_wanted, n_columns)`, float32 or the stored float type.
    """
    n_rows, n_columns = shape
    if not isinstance(form, RankFormat):
        return expanded(stored.view(n_rows, -1)[wanted], form, n_columns)
    base, left, right = rank_parts(stored, form, shape, wanted)
    (left, of_rows), (right, of_columns) = factor_of(left), factor_of(right)
    product = (left @ right.T).mul_(of_rows).mul_(of_columns.T)
    return product if form.base is None else expanded(base, form.base, n_columns).add_(product)


def rank_parts(stored: Torch, form: RankFormat, shape: tuple[int, int], wanted: slice | Torch) -> tuple[Torch, Torch, Torch]:
    """Return the bytes of the rows `wanted` of the packed matrix, of those of the left factor, and of the right factor `(n_columns, rank + 2)`."""
    shared, n_base = form.shared_bytes(shape[1]), form.base_bytes(shape[1])
    rows = stored[:-shared].view(shape[0], -1)[wanted]
    return rows[:, :n_base], rows[:, n_base:], stored[-shared:].view(shape[1], -1)


def factor_of(rows: Torch) -> tuple[Torch, Torch]:
    """Return the codes of a factor `(n, rank)`, signed bytes as float32, and their scales `(n, 1)`, stored behind them in half precision."""
    return rows[:, :-2].view(torch.int8).float(), _owned(rows[:, -2:]).view(torch.float16).float()


def expanded(rows: Torch, form: Format, n_columns: int) -> Torch:
    """Dequantize stored `rows`: bytes `(n_rows, bytes of a row)` to float32 weights `(n_rows, n_columns)`; float formats are returned unchanged."""
    if isinstance(form, SparseFormat):
        return _spread(rows, form, n_columns)
    if not isinstance(form, GROUPED):
        return rows
    n_bytes = -(-n_columns * form.bits // 8)
    return grouped_weights(rows, _owned(rows[:, n_bytes:]).view(torch.float16).float(), form, n_columns)


def grouped_weights(rows: Torch, halves: Torch, form: Grouped, n_columns: int) -> Torch:
    """Dequantize the codes at the start of `rows` by `halves`, their scales and then their minima, float32 `(n_rows, n)`: `(n_rows, n_columns)`."""
    weights, n_groups = unpacked_codes(rows[:, : -(-n_columns * form.bits // 8)], form.bits, n_columns).float(), form.n_groups(n_columns)
    if isinstance(form, SignFormat):
        return _scaled(weights.mul_(2).sub_(1), halves, form.group)
    return _scaled(weights, halves[:, :n_groups], form.group, halves[:, n_groups:])


def _owned(rows: Torch) -> Torch:
    """Copy bytes that are to be viewed as wider types: a slice may begin at an odd address."""
    return rows.clone(memory_format=torch.contiguous_format)


def _spread(rows: Torch, form: SparseFormat, n_columns: int) -> Torch:
    """Dequantize sparse `rows`: the kept weights at their positions, zeros elsewhere."""
    values, positions = kept_parts(rows, form, n_columns)
    return spread_kept(values, positions, form.pattern, n_columns)


def kept_parts(rows: Torch, form: SparseFormat, n_columns: int) -> tuple[Torch, Torch]:
    """Return the kept weights of sparse `rows`, float32 `(n_rows, n_kept)`, and the bytes of their positions."""
    n_bytes = form.kept_bytes(n_columns)
    kept = rows[:, :n_bytes] if isinstance(form.base, IntegerFormat) else _owned(rows[:, :n_bytes]).view(FLOAT_TYPES[form.base.name])
    return expanded(kept, form.base, form.pattern.n_kept(n_columns)).float(), rows[:, n_bytes:]


def spread_kept(values: Torch, positions: Torch, pattern: Pattern, n_columns: int) -> Torch:
    """Return kept weights `(n_rows, n_kept)` at their `positions` `(n_rows, n_bytes)`, and zeros elsewhere: `(n_rows, n_columns)`."""
    places = kept_places(positions, pattern, n_columns)
    return torch.cat([values.new_zeros(1), values.reshape(-1)]).index_select(0, places.reshape(-1)).view(places.shape)


def _scaled(weights: Torch, scale: Torch, group: int, minimum: Torch | None = None) -> Torch:
    """Multiply weights `(n_rows, n_columns)` by the scales of their groups `(n_rows, n_groups)`, in place, and add the minima if there are any."""
    group = group or weights.shape[1]
    n_whole = weights.shape[1] // group
    for first, n, size in ((0, n_whole, group), (n_whole, 1, weights.shape[1] - n_whole * group)):  # the last group may be short
        if n * size:
            part = weights[:, first * group : first * group + n * size].view(len(weights), n, size)
            part.mul_(scale[:, first : first + n, None])
            if minimum is not None:
                part.add_(minimum[:, first : first + n, None])
    return weights
