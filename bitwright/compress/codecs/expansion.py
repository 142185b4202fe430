"""Dequantization of the native format in torch, on any device, used by `IntegerCodec` and by native checkpoints alike.

A row is its codes, bit-packed with the highest bit first, then its scales and its minima in half precision. Multiplication and addition are separate
operations in float32: a fused multiply-add would round differently on some devices.
"""

import torch
from torch import Tensor as Torch

from bitwright.compress.codecs.code_bits import unpacked_codes
from bitwright.compress.models.float_types import FLOAT_TYPES
from bitwright.spaces import BlockFormat, Format, IntegerFormat


def stored_type(form: Format) -> torch.dtype:
    """Return the dtype in which a matrix of this format is stored: bytes, or the float type itself.

    Raises:
        ValueError: native checkpoints do not support the format.
    """
    if isinstance(form, IntegerFormat):
        return torch.uint8
    if isinstance(form, BlockFormat) and form.name in FLOAT_TYPES:
        return FLOAT_TYPES[form.name]
    raise ValueError(f"{form.name} is not a format of a native checkpoint")


def expanded(rows: Torch, form: Format, n_columns: int) -> Torch:
    """Dequantize stored `rows`: bytes `(n_rows, bytes of a row)` to float32 weights `(n_rows, n_columns)`; float formats are returned unchanged."""
    if not isinstance(form, IntegerFormat):
        return rows
    n_bytes, n_groups = -(-n_columns * form.bits // 8), form.n_groups(n_columns)
    weights = unpacked_codes(rows[:, :n_bytes], form.bits, n_columns).float()
    halves = rows[:, n_bytes:].clone(memory_format=torch.contiguous_format)  # a slice may begin at an odd address
    halves = halves.view(torch.float16).float()  # (n_rows, 2 · n_groups): the scales, then the minima
    scale, minimum = halves[:, :n_groups], halves[:, n_groups:]
    group = form.group or n_columns
    if n_columns % group == 0:
        weights.view(-1, n_groups, group).mul_(scale[..., None]).add_(minimum[..., None])
        return weights
    return weights.mul_(_wide(scale, group, n_columns)).add_(_wide(minimum, group, n_columns))


def _wide(values: Torch, group: int, n_columns: int) -> Torch:
    """Repeat values per group to one per weight `(n_rows, n_columns)`; the last group may be short."""
    return values.repeat_interleave(group, dim=1)[:, :n_columns]
