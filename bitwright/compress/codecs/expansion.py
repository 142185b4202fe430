"""Stored rows of a matrix to weights, in torch, on any device: what `IntegerCodec` decodes by, and what a native checkpoint computes with.

A row is its codes, bit after bit, the highest of each first, then its scales and its minima in half precision. Scale and minimum are widened, and
then multiplied and added apart: a fused multiply-add would round otherwise on some devices than on others.
"""

import torch
from torch import Tensor as Torch

from bitwright.compress.codecs.code_bits import unpacked_codes
from bitwright.compress.models.float_types import FLOAT_TYPES
from bitwright.spaces import BlockFormat, Format, IntegerFormat


def stored_type(form: Format) -> torch.dtype:
    """The type of the tensor that a matrix in this format is kept as: bytes, or the float itself.

    Raises:
        ValueError: no such checkpoint holds this format.
    """
    if isinstance(form, IntegerFormat):
        return torch.uint8
    if isinstance(form, BlockFormat) and form.name in FLOAT_TYPES:
        return FLOAT_TYPES[form.name]
    raise ValueError(f"{form.name} is no format of a native checkpoint")


def expanded(rows: Torch, form: Format, n_columns: int) -> Torch:
    """Weights `(n_rows, n_columns)` of stored `rows`: float32 of bytes `(n_rows, bytes of a row)`; floats are what they are."""
    if not isinstance(form, IntegerFormat):
        return rows
    n_bytes, n_groups = -(-n_columns * form.bits // 8), form.n_groups(n_columns)
    weights = unpacked_codes(rows[:, :n_bytes], form.bits, n_columns).float()
    halves = rows[:, n_bytes:].clone(memory_format=torch.contiguous_format)  # a slice may begin at an odd byte
    halves = halves.view(torch.float16).float()  # (n_rows, 2 · n_groups): the scales, then the minima
    scale, minimum = halves[:, :n_groups], halves[:, n_groups:]
    group = form.group or n_columns
    if n_columns % group == 0:
        weights.view(-1, n_groups, group).mul_(scale[..., None]).add_(minimum[..., None])
        return weights
    return weights.mul_(_wide(scale, group, n_columns)).add_(_wide(minimum, group, n_columns))


def _wide(values: Torch, group: int, n_columns: int) -> Torch:
    """One value for each weight `(n_rows, n_columns)` of one for each group, the last of which may be short."""
    return values.repeat_interleave(group, dim=1)[:, :n_columns]
