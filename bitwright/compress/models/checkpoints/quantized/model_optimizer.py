"""Checkpoints of NVIDIA's ModelOpt: 8-bit floats, and NVFP4 (https://github.com/NVIDIA/TensorRT-Model-Optimizer, `torch/export`).

NVFP4: `weight` uint8 `(n_rows, n_columns / 2)` holds two E2M1 floats a byte, the lower bits first, `weight_scale` float8 `(n_rows, n_columns / 16)`,
and `weight_scale_2` a single float32 by which the scales are multiplied.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor as Torch

from bitwright.compress.models.checkpoints.quantized.bit_fields import E2M1, nibbles
from bitwright.compress.models.checkpoints.quantized.float8 import float8_weights
from bitwright.compress.models.checkpoints.quantized.packed_weight import PackedWeight, Stored, part
from bitwright.errors import ModelError, shown

_KNOWN, _GROUP, _OUTER = ("FP8", "NVFP4", "MIXED_PRECISION"), 16, "_scale_2"


def model_optimizer_weights(settings: Mapping[str, Any], stored: Stored, dtype: str) -> Iterable[PackedWeight]:
    """Yield the weights of a ModelOpt checkpoint.

    Raises:
        ModelError: its `quant_algo` is another, or the tensors of a layer do not fit each other.
    """
    algorithm = str(settings.get("quant_algo") or _KNOWN[0])
    if not algorithm.startswith(_KNOWN):
        raise ModelError(
            f"ModelOpt's weights must be in FP8 or NVFP4; these are in {shown(algorithm)}: give a model in one of the two, or the one that it was "
            "made from."
        )
    yield from float8_weights({}, stored, dtype)
    for name in stored:
        if name.endswith(_OUTER):
            yield _weight(name.removesuffix(_OUTER), stored, dtype)


def _weight(name: str, stored: Stored, dtype: str) -> PackedWeight:
    codes = part(stored, name)
    n_columns = 2 * codes.shape[-1]
    scale = part(stored, f"{name}_scale", (*codes.shape[:-1], n_columns // _GROUP))
    outer = part(stored, f"{name}{_OUTER}", codes.shape[:-2], (*codes.shape[:-2], 1))
    parts = {"codes": codes, "scale": scale, "outer": outer}
    return PackedWeight(name, (*codes.shape[:-1], n_columns), dtype, 4, parts, partial(_decoded, group=_GROUP))


def _decoded(parts: Mapping[str, Torch], *, group: int) -> Torch:
    values = torch.tensor(E2M1)[nibbles(parts["codes"])]
    return values * (parts["scale"].float() * parts["outer"].float()).repeat_interleave(group, dim=1)
