"""Float types in which weights are stored, and lossless conversion to them."""

import numpy as np
import torch
from torch import Tensor as Torch

from bitwright.compress.models.source import Bytes

#: in the order in which they are tried; F32 holds every weight here
FLOAT_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
LARGEST_HALF = float(np.finfo(np.float16).max)


def holds(name: str, weights: Torch) -> bool:
    """Return whether the type called `name` represents every float32 weight exactly."""
    return torch.equal(weights.to(FLOAT_TYPES[name]).float(), weights)


def in_type(name: str, weights: Torch) -> Bytes:
    """Convert float32 weights to the bytes `(n_bytes,)` of the type called `name`."""
    data: Bytes = weights.to(FLOAT_TYPES[name]).contiguous().view(torch.uint8).numpy().reshape(-1)
    return data
