"""bfloat16 scales of groups and rows, as checkpoints store them."""

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress.models.source import Bytes, Floats


def narrow_scales(scale: Floats) -> Bytes:
    """Convert scales `(n_rows, n_groups)` that are bfloat16 values to bytes `(n_rows, 2 · n_groups)`."""
    narrow: Bytes = torch.from_numpy(np.ascontiguousarray(scale, dtype=np.float32)).bfloat16().view(torch.uint8).numpy()
    return narrow


def wide_scales(scale: NDArray[np.uint16]) -> Floats:
    """Convert 16-bit words to scales in float32."""
    return (scale.astype(np.uint32) << 16).view(np.float32)
