"""Linear layers that transformers loads wider than it computes, once they are packed.

A family names what stays in float32 by parts of names (`_keep_in_fp32_modules_strict`). Where one of them is `scale`, as in HY-V4, the scales of all
packed layers are among it, and their unpacked weights do not fit inputs of 16 bits.
"""

from collections.abc import Iterable

import torch
from transformers import PreTrainedModel
from transformers.core_model_loading import build_glob_alternation

_SCALE = "_scale"


def widened_layers(module: PreTrainedModel, names: Iterable[str]) -> frozenset[str]:
    """Return those of `names`, weights of linear layers, whose scales are kept in float32 while they themselves are not."""
    kept = list(module._get_dtype_plan(torch.bfloat16))
    if not kept:
        return frozenset()
    pattern, *_ = build_glob_alternation(kept)
    return frozenset(name for name in names if not pattern.search(name) and pattern.search(f"{name}{_SCALE}"))
