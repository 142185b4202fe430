"""Types in which weights are stored, and lossless conversion to them: floats, and the integers of tables that a model looks up."""

import numpy as np
import torch
from torch import Tensor as Torch

from bitwright.compress.models.source import Bytes

#: in the order in which they are tried; F32 holds every weight here
FLOAT_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
#: of tables of integers, such as the experts of each token in DeepSeek-V4: nothing quantizes them
INTEGER_TYPES = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16}
STORED_TYPES = FLOAT_TYPES | INTEGER_TYPES
LARGEST_INTEGER = 1 << 24  # up to which float32 has every integer
LARGEST_HALF = float(np.finfo(np.float16).max)


def holds(name: str, weights: Torch) -> bool:
    """Return whether the type called `name` represents every one of the weights exactly."""
    return weights.dtype == FLOAT_TYPES[name] or torch.equal(weights.to(FLOAT_TYPES[name]).float(), weights.float())


def integer_type(dtype: torch.dtype) -> str:
    """Return the name of a type of integers, empty for any other type."""
    return next((name for name, known in INTEGER_TYPES.items() if known == dtype), "")


def float_bytes(name: str, weights: Torch) -> Bytes:
    """Convert float32 weights to the bytes `(n_bytes,)` of the type called `name`."""
    data: Bytes = weights.to(STORED_TYPES[name]).contiguous().view(torch.uint8).numpy().reshape(-1)
    return data
