"""Loading of models to measure, from a GGUF file, a Hugging Face folder or a hub name.

Only safetensors and GGUF are read: no pickle is loaded and no code of a model is run. The tensors are those that an engine's view has; see `view.py`.
"""

from functools import lru_cache

import torch
from transformers import PreTrainedModel

from bitwright.compress.models.extremes import require_sound
from bitwright.compress.models.gguf.gguf_view import GGUF_VIEW
from bitwright.compress.models.headers import Outline
from bitwright.compress.models.model import Model
from bitwright.compress.models.opening import Checkpoint, open_checkpoint
from bitwright.compress.models.residence import IN_MEMORY, Residence
from bitwright.compress.models.source import Source
from bitwright.compress.models.streaming.hidden_states import HiddenStates
from bitwright.compress.models.streaming.room import Room, footprint, in_memory, sentence_of, streams, whole_bytes
from bitwright.compress.models.streaming.streamed_module import streamed_module
from bitwright.compress.models.view import View

_KEPT_OPEN = 4  # sources in memory; a run needs one


def open_source(name: str, view: View = GGUF_VIEW) -> Source:
    """Open the tensors of a model without a torch module; weights are read from the files on demand.

    Raises:
        ModelError: no such model, or not one that can be read.
    """
    return _source(open_checkpoint(name), view)


@lru_cache(maxsize=_KEPT_OPEN)
def _source(checkpoint: Checkpoint, view: View) -> Source:
    """Return the view's source of a checkpoint, the same one each time: its fingerprint takes reading every weight."""
    return view.source(checkpoint)


def load(name: str, device: str = "cpu", *, view: View = GGUF_VIEW, dtype: torch.dtype = torch.float32, room: Room | None = None) -> Model:
    """Load a model in `dtype` on `device`, with its tensors as `view` has them: in memory, or streamed where it does not fit into `room`.

    Raises:
        ModelError: no such model, no language model, one that the view does not support, or weights that are NaN.
        UserError: `room` does not hold two of its blocks.
    """
    checkpoint = open_checkpoint(name)
    if room is not None and streams(checkpoint.skeleton, room, dtype=dtype):
        module, residence, notes = _streamed(checkpoint, view, torch.device(device), dtype, room)
    else:
        residence = IN_MEMORY if room is None else in_memory(checkpoint.skeleton, room, dtype=dtype)
        module, notes = checkpoint.module(), ()
    source, tokenizer = _source(checkpoint, view), checkpoint.tokenizer
    module.requires_grad_(False)
    module.train(mode=False)
    bound = view.bound(checkpoint, module)
    torch.nn.Module.to(module, device=torch.device(device))
    for parameter in module.parameters():  # buffers, such as rotary frequencies, stay exact
        parameter.data = parameter.data.to(dtype)
    model = Model(module, tokenizer, source, dict(bound.pieces), (*notes, *bound.notes), checkpoint.quantized, residence)
    require_sound(model)
    return model


def needed_bytes(name: str, room: Room, *, dtype: torch.dtype = torch.float32) -> tuple[int, bool]:
    """Return the memory that a search needs for a model in `room`, and whether it is streamed.

    Raises:
        ModelError: see `load`.
        UserError: `room` does not hold two of its blocks.
    """
    skeleton = open_checkpoint(name).skeleton
    if streams(skeleton, room, dtype=dtype):
        return footprint(skeleton, room, dtype=dtype).streamed, True
    return whole_bytes(skeleton, room, dtype=dtype), False


def _streamed(
    checkpoint: Checkpoint, view: View, device: torch.device, dtype: torch.dtype, room: Room
) -> tuple[PreTrainedModel, Residence, tuple[str, ...]]:
    """Return the module of a checkpoint that is streamed, where its weights are, and a sentence about that."""
    view.require_streamable(checkpoint)
    found = footprint(checkpoint.skeleton, room, dtype=dtype)
    module, residence = streamed_module(checkpoint, device=device, dtype=dtype, hidden=HiddenStates(room.scratch, found.text))
    return module, residence, (sentence_of(found, room),)


def open_headers(name: str, view: View = GGUF_VIEW) -> Outline:
    """Read the headers of a model, without its weights.

    Raises:
        ModelError: no such model, or not one that can be read.
    """
    return view.headers(open_checkpoint(name))
