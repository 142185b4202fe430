"""Scales of groups and rows as checkpoints keep them: bfloat16."""

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress.models.source import Bytes, Floats


def narrow_scales(scale: Floats) -> Bytes:
    """The bytes `(n_rows, 2 · n_groups)` of scales `(n_rows, n_groups)` that are bfloat16 already."""
    narrow: Bytes = torch.from_numpy(np.ascontiguousarray(scale, dtype=np.float32)).bfloat16().view(torch.uint8).numpy()
    return narrow


def wide_scales(scale: NDArray[np.uint16]) -> Floats:
    """Scales in float32, of the 16-bit words that they are kept as."""
    return (scale.astype(np.uint32) << 16).view(np.float32)
