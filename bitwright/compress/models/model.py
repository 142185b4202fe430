"""Loaded model: a torch module, its tokenizer, and the engine's tensors bound to its parameters."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitwright.compress.models.source import Source
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import Tensor


@dataclass(frozen=True)
class Model:
    """Loaded model. `pieces` maps the name of every engine matrix that can be quantized to its slices of the parameters of `module`.

    The module is in evaluation mode, in float32, and its weights equal those of `source`. `notes` are sentences about
    matrices that stay as they are. `quantized` says how the weights of the source are stored, if not as floats: `4-bit weights (gptq)`.
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: Source
    pieces: dict[str, tuple[ParameterSlice, ...]]
    notes: tuple[str, ...] = ()
    quantized: str = ""

    @property
    def device(self) -> torch.device:
        """Device of the module's weights."""
        return next(self.module.parameters()).device

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of the engine in file order."""
        return self.source.tensors
