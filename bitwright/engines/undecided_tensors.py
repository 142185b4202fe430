"""Tensors that are not decided about, in a checkpoint: floats, in the narrowest type that loses nothing."""

import numpy as np
import torch

from bitwright.compress import (
    ARCHITECTURES,
    FLOAT_TYPES,
    Bytes,
    CheckpointEntry,
    CutSource,
    Headers,
    HuggingFaceSource,
    Source,
    float_bytes,
    holds,
    in_module_order,
)


def passthrough_dtype(source: Source, slot: CheckpointEntry) -> str:
    """Return the float type for a tensor that is not decided about: the narrowest that loses nothing."""
    whole = source.whole if isinstance(source, CutSource) else source
    if isinstance(whole, Headers) and len(slot.shape) == 1:
        return whole.vectors
    if len(slot.shape) > 1:
        return slot.tensor.stored if slot.tensor.stored in FLOAT_TYPES else "F32"
    values = passthrough_values(source, slot)
    return next(name for name in FLOAT_TYPES if name == "F32" or holds(name, values))


def passthrough_bytes(source: Source, slot: CheckpointEntry, dtype: str) -> Bytes:
    """Return the bytes of a tensor that is not decided about."""
    return float_bytes(dtype, passthrough_values(source, slot))


def passthrough_values(source: Source, slot: CheckpointEntry) -> torch.Tensor:
    """Return the weights of a slot as the module has them, float32, of the slot's shape."""
    whole = source.whole if isinstance(source, CutSource) else source
    if isinstance(whole, HuggingFaceSource) and slot.piece.columns is None:
        rows = whole.rows(slot.piece)  # not through the engine's: its norms have 1 added, which rounds
    else:
        read = torch.from_numpy(np.array(source.read(slot.tensor)))
        rows = read.reshape(-1, 1) if len(slot.shape) == 1 else read[slot.start : slot.stop]
        if slot.tensor.name.endswith("norm.weight") and ARCHITECTURES[whole.architecture].norms_plus_one:
            rows = rows - 1
    return in_module_order(slot.piece, rows).reshape(slot.shape)
