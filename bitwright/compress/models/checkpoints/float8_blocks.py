"""Block-wise FP8 checkpoints, 8-bit floats with a scale per block of a matrix, as DeepSeek-V3 and others are published.

`<layer>.weight` is float8 (e4m3), `<layer>.weight_scale_inv` float32 with one scale per block of `weight_block_size` rows and columns (128 × 128), by
which the block is multiplied. The weights are the products in bfloat16, as DeepSeek's own `fp8_cast_bf16.py` converts them; these are read here as
the original weights.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor as Torch

from bitwright.compress.models.checkpoints.safetensors_file import Entry
from bitwright.errors import ModelError, shown

METHOD, FLOAT8, SCALE = "fp8", "F8_E4M3", "_scale_inv"
_BLOCK = "weight_block_size"


def block_of(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Return the rows and columns of an FP8 block by the `quantization_config` of a checkpoint; (0, 0) if it is not block-wise FP8.

    Raises:
        ModelError: the block size is not two positive numbers.
    """
    block = settings.get(_BLOCK)
    if settings.get("quant_method") != METHOD or not block:
        return 0, 0
    if not isinstance(block, list) or len(block) != 2 or not all(type(side) is int and 0 < side < 2**20 for side in block):
        raise ModelError(f"A configuration's {_BLOCK} must be two numbers of rows and columns; '{shown(block)}' is not: download the model again.")
    return block[0], block[1]


def scaled_rows(weight: Entry, scale: Entry, start: int, stop: int, *, block: tuple[int, int]) -> Torch:
    """Dequantize rows `start:stop` of an FP8 matrix to bfloat16 values, as float32 `(n_rows, n_columns)`.

    Raises:
        ModelError: the scales do not match the blocks, or cannot be read.
    """
    n_rows, n_columns = weight.shape
    expected = -(-n_rows // block[0]), -(-n_columns // block[1])
    if scale.shape != expected:
        raise ModelError(
            f"A matrix in blocks of {block[0]}×{block[1]} must have a scale for each; one of {weight.path} has {'×'.join(map(str, scale.shape))} of "
            f"{expected[0]}×{expected[1]}: download the model again."
        )
    first, past = start // block[0], -(-stop // block[0])
    of_rows = scale.rows(first, past).repeat_interleave(block[0], dim=0)[start - first * block[0] :][: stop - start]
    scales = of_rows.repeat_interleave(block[1], dim=1)[:, :n_columns]
    codes = torch.from_numpy(weight.read(start * n_columns, stop * n_columns)).view(torch.float8_e4m3fn).reshape(stop - start, n_columns)
    return (codes.float() * scales).bfloat16().float()
