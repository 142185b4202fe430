"""GPTQ checkpoints, as AutoGPTQ and GPTQModel write them (https://github.com/ModelCloud/GPTQModel, `nn_modules/qlinear`).

Of a layer of `(n_rows, n_columns)`: `qweight` int32 `(n_columns × bits / 32, n_rows)`, `qzeros` int32 `(n_groups, n_rows × bits / 32)`, `scales`
float16 `(n_groups, n_rows)`, and `g_idx` int32 `(n_columns,)` with the group of each column, which is in the order of the columns unless `desc_act`
is set. A weight is `scale × (code − zero)`, rounded to the type of the scales. Version 1 of the format stores `zero − 1`, version 2 `zero`.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor as Torch

from bitwright.compress.models.checkpoints.quantized.bit_fields import unpacked
from bitwright.compress.models.checkpoints.quantized.packed_weight import PackedWeight, Stored, part
from bitwright.errors import ModelError, shown

_CODES, _WORD = ".qweight", 32
_BITS = (2, 3, 4, 8)
_ONES = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}  # one in each code of a word


def gptq_weights(settings: Mapping[str, Any], stored: Stored, dtype: str) -> Iterable[PackedWeight]:  # noqa: ARG001
    """Yield the weights of a GPTQ checkpoint.

    Raises:
        ModelError: it is in another layout (Marlin, BitBLAS), or the tensors of a layer do not fit each other.
    """
    layout = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if layout not in ("gptq", "gptq_v2") or settings.get("is_marlin_format"):
        raise ModelError(
            f"GPTQ's codes must be in its format 1 or 2 (checkpoint_format gptq, gptq_v2); these are in {shown(layout)}: give the model as it was "
            "quantized, or the one that it was made from."
        )
    for name in stored:
        if name.endswith(_CODES):
            yield _weight(name.removesuffix(_CODES), stored, settings, zero_offset=int(layout == "gptq"))


def _weight(layer: str, stored: Stored, settings: Mapping[str, Any], *, zero_offset: int) -> PackedWeight:
    codes, scales, zeros = (part(stored, f"{layer}.{role}") for role in ("qweight", "scales", "qzeros"))
    n_groups, n_rows = scales.shape if len(scales.shape) == 2 else (1, 1)
    bits = next((bits for bits in _BITS if zeros.shape == (n_groups, n_rows * bits // _WORD)), 0)
    if not bits or len(codes.shape) != 2:
        part(stored, f"{layer}.qzeros", (n_groups, n_rows * int(settings.get("bits") or 4) // _WORD))
        raise ModelError(f"GPTQ's codes must be of {', '.join(map(str, _BITS))} bits; those of {layer} in {codes.path} are not: give another model.")
    n_columns = codes.shape[0] * _WORD // bits
    group = settings.get("group_size")
    group = group if type(group) is int and 0 < group < n_columns else n_columns
    part(stored, f"{layer}.qweight", (n_columns * bits // _WORD, n_rows))
    parts = {"codes": codes, "scales": scales, "zeros": zeros}
    if f"{layer}.g_idx" in stored:
        parts["groups"] = part(stored, f"{layer}.g_idx", (n_columns,))
    else:
        part(stored, f"{layer}.scales", (-(-n_columns // group), n_rows))
    decode = partial(_decoded, bits=bits, group=group, zero_offset=zero_offset)
    return PackedWeight(f"{layer}.weight", (n_rows, n_columns), scales.dtype, bits, parts, decode)


def _decoded(parts: Mapping[str, Torch], *, bits: int, group: int, zero_offset: int) -> Torch:
    codes = unpacked(parts["codes"].T.contiguous(), bits)  # (n_rows, n_columns)
    groups = parts["groups"].long() if "groups" in parts else torch.arange(codes.shape[1]) // group
    if len(groups) and (int(groups.min()) < 0 or int(groups.max()) >= len(parts["scales"])):
        raise ValueError(f"a column is in group {int(groups.max())} of {len(parts['scales'])}")
    zeros = _zeros(parts["zeros"], bits, zero_offset)
    scales = parts["scales"]
    return scales.T[:, groups] * (codes - zeros.T[:, groups]).to(scales.dtype)


def _zeros(words: Torch, bits: int, offset: int) -> Torch:
    """Return zero points `(n_groups, n_rows)`: words take the offset whole, with carries, where codes do not cross them, as GPTQModel does it."""
    if bits in _ONES:
        return unpacked((words.long() + offset * _ONES[bits]).int(), bits)
    return (unpacked(words, bits) + offset) & ((1 << bits) - 1)
