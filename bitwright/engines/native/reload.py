"""Reload a native checkpoint with `from_pretrained`, and compare every weight with what was written."""

from pathlib import Path

import torch
from torch import Tensor as Torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from bitwright.compress import NO_CODE, CheckpointEntry, auto_class, quietly, read_tokenizer
from bitwright.engines.checkpoint_source import CheckpointSource
from bitwright.engines.native import quantizer as native_quantizer
from bitwright.engines.native.packed_modules import PackedMatrix
from bitwright.errors import BrokenPromiseError, ModelError
from bitwright.spaces import ABSENT

#: the quantizer, which importing registers
QUANTIZER = native_quantizer.NativeQuantizer


def load_native(folder: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    """Load a native checkpoint with plain `from_pretrained`: its weights stay packed.

    Raises:
        ModelError: it cannot be loaded.
    """
    with quietly(folder):
        config = AutoConfig.from_pretrained(folder, **NO_CODE)
        loaded: PreTrainedModel = auto_class(config).from_pretrained(folder, dtype=dtype, **NO_CODE)
    return loaded


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint.

    Raises:
        ModelError: it cannot be loaded.
    """
    return read_tokenizer(folder)


def reload_native(folder: Path, written: CheckpointSource) -> None:
    """Compare every weight that `from_pretrained` finds in `folder` with what was written, a layer at a time.

    Raises:
        BrokenPromiseError: a weight differs, or the checkpoint cannot be loaded.
    """
    try:
        module = load_native(folder, torch.float32)
    except ModelError as error:
        raise BrokenPromiseError(
            f"A written checkpoint must load in transformers; this one does not and was removed, please report this: {error}"
        ) from error
    for tensor in written.tensors:
        for slot in written.checkpoint_entries[tensor.name] if tensor.stored not in ABSENT else ():
            rows = _loaded(module, slot)
            expected = torch.from_numpy(written.read(tensor)).reshape(-1, *rows.shape[1:])[slot.start : slot.stop]
            if not torch.equal(rows[torch.from_numpy(slot.piece.order() - slot.piece.start)].float(), expected):
                raise BrokenPromiseError(
                    f"Every weight must load as it was written; {slot.name} does not, and the checkpoint was removed: please report this."
                )


def _loaded(module: PreTrainedModel, slot: CheckpointEntry) -> Torch:
    """Return the rows of a checkpoint entry as the module computes with them, in its order."""
    layer, _, part = slot.name.rpartition(".")
    owner = module.get_submodule(layer)
    if isinstance(owner, PackedMatrix) and part == "weight":
        return owner.rows(slice(None))
    weights: Torch = owner.state_dict()[part]
    return weights if weights.dim() else weights[None]  # Apertus has single numbers
