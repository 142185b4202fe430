"""Loading of models to measure, from a GGUF file, a Hugging Face folder or a hub name.

Only safetensors and GGUF are read: no pickle is loaded and no code of a model is run. The tensors are those that an engine's view has; see `view.py`.
"""

from functools import lru_cache

import torch

from bitwright.compress.models.extremes import require_sound
from bitwright.compress.models.gguf.gguf_view import GGUF_VIEW
from bitwright.compress.models.headers import Outline
from bitwright.compress.models.model import Model
from bitwright.compress.models.opening import Checkpoint, open_checkpoint
from bitwright.compress.models.source import Source
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


def load(name: str, device: str = "cpu", *, view: View = GGUF_VIEW) -> Model:
    """Load a model in float32 on `device`, with its tensors as `view` has them.

    Raises:
        ModelError: no such model, no language model, one that the view does not support, or weights that are NaN.
    """
    checkpoint = open_checkpoint(name)
    source, tokenizer = _source(checkpoint, view), checkpoint.tokenizer
    module = checkpoint.module().requires_grad_(False)
    module.train(mode=False)
    bound = view.bound(checkpoint, module)
    torch.nn.Module.to(module, device=torch.device(device))
    model = Model(module, tokenizer, source, dict(bound.pieces), bound.notes, checkpoint.quantized)
    require_sound(model)
    return model


def open_headers(name: str, view: View = GGUF_VIEW) -> Outline:
    """Read the headers of a model, without its weights.

    Raises:
        ModelError: no such model, or not one that can be read.
    """
    return view.headers(open_checkpoint(name))
