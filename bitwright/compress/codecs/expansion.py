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
from bitwright.spaces import BlockFormat, Format, IntegerFormat, RankFormat, SignFormat, SparseFormat

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
    shared = form.shared_bytes(n_columns)
    rows, n_base = stored[:-shared].view(n_rows, -1)[wanted], form.base_bytes(n_columns)
    (left, of_rows), (right, of_columns) = _factor(rows[:, n_base:]), _factor(stored[-shared:].view(n_columns, -1))
    product = (left @ right.T).mul_(of_rows).mul_(of_columns.T)
    return product if form.base is None else expanded(rows[:, :n_base], form.base, n_columns).add_(product)


def _factor(rows: Torch) -> tuple[Torch, Torch]:
    """Return the codes of a factor `(n, rank)`, signed bytes as float32, and their scales `(n, 1)`, stored behind them in half precision."""
    return _owned(rows[:, :-2]).view(torch.int8).float(), _owned(rows[:, -2:]).view(torch.float16).float()


def expanded(rows: Torch, form: Format, n_columns: int) -> Torch:
    """Dequantize stored `rows`: bytes `(n_rows, bytes of a row)` to float32 weights `(n_rows, n_columns)`; float formats are returned unchanged."""
    if isinstance(form, SparseFormat):
        return _spread(rows, form, n_columns)
    if not isinstance(form, GROUPED):
        return rows
    n_bytes, n_groups = -(-n_columns * form.bits // 8), form.n_groups(n_columns)
    weights = unpacked_codes(rows[:, :n_bytes], form.bits, n_columns).float()
    halves = _owned(rows[:, n_bytes:]).view(torch.float16).float()
    if isinstance(form, SignFormat):
        return _scaled(weights.mul_(2).sub_(1), halves, form.group)
    return _scaled(weights, halves[:, :n_groups], form.group, halves[:, n_groups:])  # the scales, then the minima


def _owned(rows: Torch) -> Torch:
    """Copy bytes that are to be viewed as wider types: a slice may begin at an odd address."""
    return rows.clone(memory_format=torch.contiguous_format)


def _spread(rows: Torch, form: SparseFormat, n_columns: int) -> Torch:
    """Dequantize sparse `rows`: the kept weights at their positions, zeros elsewhere."""
    n_bytes = form.kept_bytes(n_columns)
    kept = rows[:, :n_bytes] if isinstance(form.base, IntegerFormat) else _owned(rows[:, :n_bytes]).view(FLOAT_TYPES[form.base.name])
    values = expanded(kept, form.base, form.pattern.n_kept(n_columns)).float()
    places = kept_places(rows[:, n_bytes:], form.pattern, n_columns)
    return torch.cat([values.new_zeros(1), values.reshape(-1)]).index_select(0, places.reshape(-1)).view(places.shape)


def _scaled(weights: Torch, scale: Torch, group: int, minimum: Torch | None = None) -> Torch:
    """Multiply weights `(n_rows, n_columns)` by the scales of their groups `(n_rows, n_groups)`, in place, and add the minima if there are any."""
    group = group or weights.shape[1]
    n_whole = weights.shape[1] // group
    whole, short = weights[:, : n_whole * group].view(len(weights), n_whole, group), weights[:, n_whole * group :].unsqueeze(1)
    for part, of in ((whole, slice(n_whole)), (short, slice(n_whole, None))):  # the last group may be short
        if part.numel():
            part.mul_(scale[:, of, None])
            if minimum is not None:
                part.add_(minimum[:, of, None])
    return weights
