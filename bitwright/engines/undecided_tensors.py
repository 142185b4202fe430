"""Tensors that are not decided about, in a checkpoint: floats, in the narrowest type that loses nothing, and tables of integers."""

import numpy as np
import torch

from bitwright.compress import STORED_TYPES, Bytes, CheckpointEntry, Source, float_bytes, in_module_order


def passthrough_dtype(slot: CheckpointEntry) -> str:
    """Return the type in which a tensor that is not decided about is kept: that of the source."""
    return slot.tensor.stored if slot.tensor.stored in STORED_TYPES else "F32"


def passthrough_bytes(source: Source, slot: CheckpointEntry) -> Bytes:
    """Return the bytes of such a tensor."""
    if slot.piece.expert >= 0 and len(slot.tensor.shape) == 3:  # one of a stack that may be as large as all else
        rows = source.part(slot.tensor, slot.start // slot.piece.n_rows)
    else:
        rows = source.read(slot.tensor)
    return float_bytes(passthrough_dtype(slot), in_module_order(slot.piece, torch.from_numpy(np.array(rows))))
