"""HQQ checkpoints in safetensors, as `HQQLinear.state_dict` encodes them (https://github.com/mobiusml/hqq, `core/quantize.py`, `core/bitpack.py`).

`W_q` holds codes of a matrix whose rows or columns are groups; the codes in the upper bits are those of the first rows. A weight is
`(code − zero) × scale` in `compute_dtype`. What else a layer says (`shape`, `axis`, `group_size`, `packing`, ...) are tensors too.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor as Torch

from bitwright.compress.models.checkpoints.quantized.packed_weight import PackedWeight, Stored, part
from bitwright.compress.models.checkpoints.safetensors_file import DTYPES
from bitwright.errors import ModelError, shown

_CODES = ".W_q"
#: packing → bits of a code, codes in a word
_PACKINGS = {"8bit_u8": (8, 1), "4bit_u8": (4, 2), "3bit_32": (3, 10), "2bit_u8": (2, 4), "1bit_u8": (1, 8)}
_SAID = ("shape", "axis", "group_size", "packing", "compute_dtype")
_MORE = (
    *("nbits", "unpack_view_dtype", "view_as_float", "quant_scale", "quant_zero", "offload_meta", "encoded_state_dict", "stores_quant_config"),
    *("channel_wise", "optimize", "round_zero"),
)
_TYPES = {str(dtype): name for name, dtype in DTYPES.items()}
_LONGEST = 64  # values of what a layer says


def hqq_weights(settings: Mapping[str, Any], stored: Stored, dtype: str) -> Iterable[PackedWeight]:  # noqa: ARG001
    """Yield the weights of an HQQ checkpoint.

    Raises:
        ModelError: the tensors of a layer do not fit each other, or its scales are quantized too.
    """
    for name in stored:
        if name.endswith(_CODES):
            yield _weight(name.removesuffix(_CODES), stored)


def _weight(layer: str, stored: Stored) -> PackedWeight:
    parts = {role: part(stored, f"{layer}.{role}") for role in ("W_q", "scale", "zero", *_SAID)}
    parts |= {role: stored[f"{layer}.{role}"] for role in _MORE if f"{layer}.{role}" in stored}
    long = [role for role in parts if role not in ("W_q", "scale", "zero") and parts[role].n_weights > _LONGEST]
    said = {role: parts[role].values().reshape(-1).tolist() for role in (*_SAID, "quant_scale", "quant_zero") if role in parts and role not in long}
    packing, computed = ("".join(map(chr, said.get(role, ()))) for role in ("packing", "compute_dtype"))
    if (
        long
        or packing not in _PACKINGS
        or computed not in _TYPES
        or len(said["shape"]) != 2
        or sum(said.get("quant_scale", []))
        or sum(said.get("quant_zero", []))
    ):
        raise ModelError(
            f"A layer of HQQ must say its shape, packing and type, with scales that are floats; {layer} in {parts['W_q'].path} does not "
            f"({shown(packing)}, {shown(computed)}): download the model again, or give the one that it was made from."
        )
    n_rows, n_columns = map(int, said["shape"])
    decode = partial(_decoded, packing=packing, shape=(n_rows, n_columns), n_codes=_n_codes(said, n_rows * n_columns), dtype=DTYPES[_TYPES[computed]])
    return PackedWeight(f"{layer}.weight", (n_rows, n_columns), _TYPES[computed], _PACKINGS[packing][0], parts, decode)


def _n_codes(said: Mapping[str, list[int]], n_weights: int) -> int:
    """Return how many rows the unpacked matrix of groups has; a packing that does not divide them fills up with zeros."""
    group = max(said["group_size"][0], 1)
    return group if said["axis"][0] == 0 else n_weights // group


def _decoded(parts: Mapping[str, Torch], *, packing: str, shape: tuple[int, int], n_codes: int, dtype: torch.dtype) -> Torch:
    bits, n_in_word = _PACKINGS[packing]
    words = parts["W_q"].view(torch.int32 if packing.endswith("_32") else torch.uint8)
    top = bits * (n_in_word - 1)
    codes = torch.cat([(words >> (top - bits * i)) & ((1 << bits) - 1) for i in range(n_in_word)])[:n_codes]
    return ((codes.to(dtype) - parts["zero"].to(dtype)) * parts["scale"].to(dtype)).reshape(shape)
