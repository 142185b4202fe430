"""MXFP4 of gpt-oss: stacks of experts in 4-bit floats, with a power of two for each 32 (OCP Microscaling Formats, version 1.0).

`<stack>_blocks` uint8 `(n_experts, n_rows, n_columns / 32, 16)`, `<stack>_scales` uint8 `(n_experts, n_rows, n_columns / 32)`. The module holds each
expert transposed, in bfloat16, as transformers' own dequantization makes it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor as Torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from bitwright.compress.models.checkpoints.quantized.packed_weight import PackedWeight, Stored, part

_CODES, _SCALES, _HALF_GROUP = "_blocks", "_scales", 16


def mxfp4_weights(settings: Mapping[str, Any], stored: Stored, dtype: str) -> Iterable[PackedWeight]:  # noqa: ARG001
    """Yield the stacks of experts of an MXFP4 checkpoint.

    Raises:
        ModelError: the tensors of a stack do not fit each other.
    """
    for name in stored:
        if name.endswith(_CODES):
            yield _weight(name.removesuffix(_CODES), stored)


def _weight(name: str, stored: Stored) -> PackedWeight:
    codes = part(stored, name + _CODES)
    n_experts, n_rows, n_groups = (*codes.shape, 1, 1, 1)[:3]
    part(stored, name + _CODES, (n_experts, n_rows, n_groups, _HALF_GROUP))
    scales = part(stored, name + _SCALES, (n_experts, n_rows, n_groups))
    shape = n_experts, 2 * _HALF_GROUP * n_groups, n_rows
    return PackedWeight(name, shape, "BF16", 4, {"codes": codes, "scales": scales}, _decoded)


def _decoded(parts: Mapping[str, Torch]) -> Torch:
    made: Torch = convert_moe_packed_tensors(parts["codes"].unsqueeze(0), parts["scales"].unsqueeze(0))
    return made[0]
