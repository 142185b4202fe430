"""The float types that weights are kept in, and the narrowest of them that loses nothing."""

import numpy as np
import torch
from torch import Tensor as Torch

from bitwright.compress.models.source import Bytes

#: from the one tried first to the one that holds everything here
FLOAT_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
LARGEST_HALF = float(np.finfo(np.float16).max)


def holds(name: str, weights: Torch) -> bool:
    """Whether the type of that name holds every weight, float32, exactly."""
    return torch.equal(weights.to(FLOAT_TYPES[name]).float(), weights)


def in_type(name: str, weights: Torch) -> Bytes:
    """The bytes `(n_bytes,)` of float32 weights in the type of that name."""
    data: Bytes = weights.to(FLOAT_TYPES[name]).contiguous().view(torch.uint8).numpy().reshape(-1)
    return data
