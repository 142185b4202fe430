"""Checkpoints of bitsandbytes (https://github.com/bitsandbytes-foundation/bitsandbytes, `functional.py`): 4 bits (NF4, FP4) and 8 bits.

4 bits: `weight` uint8 holds two codes a byte, the upper bits first, over the flattened matrix; a weight is `quant_map[code] × absmax[block]`. With
double quantization `absmax` are codes themselves, of `nested_quant_map` and `nested_absmax`, and an offset is added. The shape, block sizes and type
are JSON in a tensor, `quant_state.bitsandbytes__nf4` or `__fp4`. 8 bits: `weight` int8 `(n_rows, n_columns)`, `SCB` float32 `(n_rows,)`, the largest
magnitude of each row.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor as Torch

from bitwright.compress.models.checkpoints.quantized.packed_weight import PackedWeight, Stored, part
from bitwright.compress.models.checkpoints.safetensors_file import DTYPES, StoredTensor
from bitwright.errors import ModelError, shown
from bitwright.spaces import json_object

_STATE, _SCALE, _FORMAT = ".quant_state.bitsandbytes__", ".SCB", ".weight_format"
_STATE_BYTES = 4096
_STEP = 7.874015718698502e-3  # 1/127, as bitsandbytes multiplies
_TYPES = {str(dtype).removeprefix("torch."): name for name, dtype in DTYPES.items()}


def bitsandbytes_weights(settings: Mapping[str, Any], stored: Stored, dtype: str) -> Iterable[PackedWeight]:  # noqa: ARG001
    """Yield the weights of a bitsandbytes checkpoint.

    Raises:
        ModelError: the tensors of a layer do not fit each other, or 8-bit weights are not in the order of their rows.
    """
    for name in stored:
        if _STATE in name:
            yield _four_bits(name.partition(_STATE)[0], stored, stored[name])
        elif name.endswith(_SCALE):
            yield _eight_bits(name.removesuffix(_SCALE), stored, dtype)


def _four_bits(name: str, stored: Stored, state: StoredTensor) -> PackedWeight:
    codes, about = part(stored, name), _state(name, state)
    shape, block = tuple(about["shape"]), about["blocksize"]
    n_blocks = -(-prod(shape) // block)
    part(stored, name, (-(-prod(shape) // 2), 1), (1, -(-prod(shape) // 2)), (-(-prod(shape) // 2),))
    parts = {"codes": codes, "absmax": part(stored, f"{name}.absmax", (n_blocks,)), "map": part(stored, f"{name}.quant_map", (16,)), "state": state}
    if "nested_blocksize" in about:
        parts["nested_absmax"] = part(stored, f"{name}.nested_absmax", (-(-n_blocks // about["nested_blocksize"]),))
        parts["nested_map"] = part(stored, f"{name}.nested_quant_map", (256,))
    return PackedWeight(name, shape, _TYPES[about["dtype"]], 4, parts, partial(_decoded, about=about))


def _state(name: str, stored: StoredTensor) -> dict[str, Any]:
    """Read the shape, the block sizes and the type of a weight."""
    try:
        if stored.dtype != "U8" or stored.n_weights > _STATE_BYTES:
            raise ValueError(f"{stored.n_weights} values of {stored.dtype}")
        found = json_object(bytes(stored.read(0, stored.n_weights)).decode())
        sizes = [found["blocksize"], *found["shape"], *([found["nested_blocksize"]] if "nested_blocksize" in found else [])]
        if found["dtype"] not in _TYPES or len(found["shape"]) != 2 or not all(type(size) is int and 0 < size < 2**32 for size in sizes):
            raise ValueError(f"type {found['dtype']}, sizes {sizes}")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"A weight of bitsandbytes must say its shape and block size; {name} in {stored.path} does not ({shown(error, 100)}): download the "
            "model again."
        ) from error
    return found


def _decoded(parts: Mapping[str, Torch], *, about: Mapping[str, Any]) -> Torch:
    absmax = parts["absmax"]
    if "nested_map" in parts:
        absmax = _in_blocks(parts["nested_map"][absmax.int()], parts["nested_absmax"], about["nested_blocksize"]) + float(about["nested_offset"])
    packed = parts["codes"].reshape(-1)
    codes = torch.stack([packed >> 4, packed & 15], dim=-1).reshape(-1)[: prod(about["shape"])].int()
    return _in_blocks(parts["map"][codes], absmax, about["blocksize"]).reshape(about["shape"])


def _in_blocks(values: Torch, scales: Torch, block: int) -> Torch:
    return values * scales.repeat_interleave(block)[: len(values)]


def _eight_bits(layer: str, stored: Stored, dtype: str) -> PackedWeight:
    name = f"{layer}.weight"
    codes = part(stored, name)
    parts = {"codes": codes, "scale": part(stored, layer + _SCALE, codes.shape[:1], (*codes.shape[:1], 1))}
    if layer + _FORMAT in stored:
        parts["format"] = part(stored, layer + _FORMAT, ())
        if int(parts["format"].values()) != 0:
            raise ModelError(
                f"8-bit weights of bitsandbytes must be in the order of their rows; those of {layer} in {codes.path} are not: save the model again."
            )
    return PackedWeight(name, codes.shape, dtype, 8, parts, _decoded_rows)


def _decoded_rows(parts: Mapping[str, Torch]) -> Torch:
    return parts["codes"] * parts["scale"].reshape(-1, 1) * _STEP
