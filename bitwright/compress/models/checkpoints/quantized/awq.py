"""AWQ checkpoints in the layout of its GEMM kernels, as AutoAWQ writes them (https://github.com/casper-hansen/AutoAWQ, `awq/modules/linear/gemm.py`).

Of a layer of `(n_rows, n_columns)`: `qweight` int32 `(n_columns, n_rows / 8)`, `qzeros` int32 `(n_groups, n_rows / 8)`, `scales` float16
`(n_groups, n_rows)`; the eight codes of a word are rows 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits up. A weight is `scale × (code − zero)`.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor as Torch

from bitwright.compress.models.checkpoints.quantized.bit_fields import unpacked
from bitwright.compress.models.checkpoints.quantized.packed_weight import PackedWeight, Stored, part
from bitwright.errors import ModelError, shown

_CODES, _BITS, _PER_WORD = ".qweight", 4, 8
_PLACES = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])  # where in a word the code of each row is


def awq_weights(settings: Mapping[str, Any], stored: Stored, dtype: str) -> Iterable[PackedWeight]:  # noqa: ARG001
    """Yield the weights of an AWQ checkpoint.

    Raises:
        ModelError: it is in another layout or of other bits, or the tensors of a layer do not fit each other.
    """
    layout = str(settings.get("version") or settings.get("format") or "gemm").lower()
    bits = settings.get("bits") or settings.get("w_bit") or _BITS
    if layout != "gemm" or bits != _BITS:
        raise ModelError(
            f"AWQ's codes must be of {_BITS} bits in its layout gemm; these are of {shown(bits)} bits in {shown(layout)}: give a model in gemm, or "
            "the one that it was made from."
        )
    for name in stored:
        if name.endswith(_CODES):
            yield _weight(name.removesuffix(_CODES), stored)


def _weight(layer: str, stored: Stored) -> PackedWeight:
    codes, scales = (part(stored, f"{layer}.{role}") for role in ("qweight", "scales"))
    n_groups, n_rows = scales.shape if len(scales.shape) == 2 else (1, 1)
    n_columns = codes.shape[0]
    part(stored, f"{layer}.qweight", (n_columns, n_rows // _PER_WORD))
    zeros = part(stored, f"{layer}.qzeros", (n_groups, n_rows // _PER_WORD))
    part(stored, f"{layer}.scales", (n_groups if n_columns % max(n_groups, 1) == 0 else 1, n_rows))
    parts = {"codes": codes, "scales": scales, "zeros": zeros}
    return PackedWeight(f"{layer}.weight", (n_rows, n_columns), scales.dtype, _BITS, parts, partial(_decoded, group=n_columns // n_groups))


def _decoded(parts: Mapping[str, Torch], *, group: int) -> Torch:
    codes, zeros = _in_order(parts["codes"]), _in_order(parts["zeros"])
    scales = parts["scales"].repeat_interleave(group, dim=0)
    return ((codes - zeros.repeat_interleave(group, dim=0)).to(scales.dtype) * scales).T


def _in_order(words: Torch) -> Torch:
    codes = unpacked(words, _BITS)
    return codes.reshape(len(codes), -1, _PER_WORD)[..., _PLACES].reshape(len(codes), -1)
