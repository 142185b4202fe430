"""Attention that was taken away, inside the loaded model: it adds nothing to the hidden states, and has no keys and values."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor as Torch
from torch import nn
from transformers import PreTrainedModel

from bitwright.spaces import PRUNE, Format


class AbsentAttention(nn.Module):
    """Attention of a block without weights, called as that of transformers is."""

    def forward(self, hidden_states: Torch, *_: Any, **__: Any) -> tuple[Torch, None]:
        """Return zeros of the shape of `hidden_states`, and no weights of attention."""
        return torch.zeros_like(hidden_states), None


def take_attention(module: PreTrainedModel, formats: Mapping[str, Format]) -> None:
    """Replace every attention that `formats`, by the names of layers, say is pruned."""
    attentions = {path for path, layer in module.named_modules() if path in formats and len(list(layer.children())) > 1}
    for path in attentions:
        if formats[path] == PRUNE:
            module.set_submodule(path, AbsentAttention())
