"""What a checkpoint keeps of a tensor that is not decided about: its weights as floats, in the narrowest type that loses nothing."""

import numpy as np
import torch

from bitwright.compress import ARCHITECTURES, FLOAT_TYPES, Apart, Bytes, Headers, HuggingFaceSource, Slot, Source, holds, in_module_order, in_type


def kept_type(source: Source, slot: Slot) -> str:
    """The float type in which a tensor that is not decided about is kept: the narrowest that loses nothing."""
    whole = source.whole if isinstance(source, Apart) else source
    if isinstance(whole, Headers) and len(slot.shape) == 1:
        return whole.vectors
    if len(slot.shape) > 1:
        return slot.tensor.stored if slot.tensor.stored in FLOAT_TYPES else "F32"
    values = kept_values(source, slot)
    return next(name for name in FLOAT_TYPES if name == "F32" or holds(name, values))


def kept_bytes(source: Source, slot: Slot, dtype: str) -> Bytes:
    """The bytes of such a tensor."""
    return in_type(dtype, kept_values(source, slot))


def kept_values(source: Source, slot: Slot) -> torch.Tensor:
    """The weights of a slot as the module has them, float32, of the slot's shape."""
    whole = source.whole if isinstance(source, Apart) else source
    if isinstance(whole, HuggingFaceSource) and slot.piece.columns is None:
        rows = whole.rows(slot.piece)  # not through the engine's: its norms have 1 added, which rounds
    else:
        read = torch.from_numpy(np.array(source.read(slot.tensor)))
        rows = read.reshape(-1, 1) if len(slot.shape) == 1 else read[slot.start : slot.stop]
        if slot.tensor.name.endswith("norm.weight") and ARCHITECTURES[whole.architecture].norms_plus_one:
            rows = rows - 1
    return in_module_order(slot.piece, rows).reshape(slot.shape)
