"""Checkpoints in 8-bit floats (E4M3, E5M2) with scales for blocks, rows or whole tensors.

`<layer>.weight` is float8. DeepSeek-V3 and others publish `weight_scale_inv` with one scale per block of `weight_block_size` rows and columns
(128 × 128); NVIDIA ModelOpt, FBGEMM and others `weight_scale`, a single number or one for each row. The weight is the product, rounded to the type of
the model's configuration, as transformers dequantizes it (`integrations/finegrained_fp8.py`).
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor as Torch

from bitwright.compress.models.checkpoints.quantized.packed_weight import PackedWeight, Stored, part, times
from bitwright.errors import ModelError, shown

FLOAT8 = ("F8_E4M3", "F8_E5M2")
_BLOCK, _WEIGHT = "weight_block_size", ".weight"
_SCALES = ("_scale", "_scale_inv", ".scale", ".qscale_weight")  # scales may be 8-bit floats themselves


def float8_weights(settings: Mapping[str, Any], stored: Stored, dtype: str) -> Iterable[PackedWeight]:
    """Yield the weights of a checkpoint in 8-bit floats.

    Raises:
        ModelError: the block size is not two positive numbers, or a weight has no scale, or one of another shape.
    """
    block = _block_of(settings)
    for name, tensor in stored.items():
        if tensor.dtype in FLOAT8 and len(tensor.shape) > 1 and not name.endswith(_SCALES):
            yield _weight(name, stored, block, dtype)


def _weight(name: str, stored: Stored, block: tuple[int, int], dtype: str) -> PackedWeight:
    layer = name.removesuffix(_WEIGHT)
    names = (f"{name}_scale_inv", f"{name}_scale", f"{layer}.scale", f"{layer}.qscale_weight")
    codes, scale = stored[name], part(stored, next((found for found in names if found in stored), names[0]))
    n_rows, n_columns = codes.shape[-2:]
    if block == (0, 0):
        of_matrix = scale.shape[len(codes.shape) - 2 :]
        sides = _sides(of_matrix, (n_rows, n_columns)) if scale.shape == (*codes.shape[:-2], *of_matrix) else (0, 0)
        block = n_rows // max(sides[0], 1), n_columns // max(sides[1], 1)
        fits = sides[0] and sides[1] and sides[0] * block[0] == n_rows and sides[1] * block[1] == n_columns
    else:
        sides = -(-n_rows // block[0]), -(-n_columns // block[1])
        fits = scale.shape == (*codes.shape[:-2], *sides)
    if not fits:
        raise ModelError(
            f"A matrix in blocks must have a scale for each, or one for each row or for all; {name} of {n_rows}×{n_columns} in {codes.path}, in "
            f"blocks of {block[0]}×{block[1]}, has {times(scale.shape)} scales: download the model again."
        )
    decode = partial(_decoded, sides=sides, block=block)
    return PackedWeight(name, codes.shape, dtype, 8, {"codes": codes, "scale": scale}, decode)


def _sides(inner: tuple[int, ...], matrix: tuple[int, int]) -> tuple[int, int]:
    """Return how many scales there are along the rows and along the columns of a matrix, by their shape; 0 where they are no grid."""
    if len(inner) == 4 and inner[1] == inner[3] == 1:  # ModelOpt's blocks
        inner = inner[::2]
    if len(inner) < 2:
        count = inner[0] if inner else 1
        return (count, 1) if count in (1, matrix[0]) else (0, 0)
    return (inner[0], inner[1]) if len(inner) == 2 else (0, 0)


def _decoded(parts: Mapping[str, Torch], *, sides: tuple[int, int], block: tuple[int, int]) -> Torch:
    codes, scale = parts["codes"].float(), parts["scale"]
    factors = (scale.float() - 127).exp2() if scale.dtype == torch.uint8 else scale.float()  # bytes are exponents (E8M0)
    of_rows = factors.reshape(sides).repeat_interleave(block[0], dim=0)[: len(codes)]
    return codes * of_rows.repeat_interleave(block[1], dim=1)[:, : codes.shape[1]]


def _block_of(settings: Mapping[str, Any]) -> tuple[int, int]:
    block = settings.get(_BLOCK)
    if not block:
        return 0, 0
    if not isinstance(block, list) or len(block) != 2 or not all(type(side) is int and 0 < side < 2**20 for side in block):
        raise ModelError(f"A configuration's {_BLOCK} must be two numbers of rows and columns; '{shown(block)}' is not: download the model again.")
    return block[0], block[1]
