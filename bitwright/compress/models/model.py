"""Loaded model: a torch module, its tokenizer, and the engine's tensors bound to its parameters."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor as Torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.residence import IN_MEMORY, Job, Residence, Result
from bitwright.compress.models.source import Source
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.progress import Advance
from bitwright.spaces import Tensor


@dataclass(frozen=True)
class Model:
    """Loaded model. `pieces` maps the name of every engine matrix that can be quantized to its slices of the parameters of `module`.

    The module is in evaluation mode, and its weights equal those of `source`; `residence` says where they are. `notes` are sentences about
    matrices that stay as they are. `quantized` says how the weights of the source are stored, if not as floats: `4-bit weights (gptq)`.
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: Source
    pieces: dict[str, tuple[ParameterSlice, ...]]
    notes: tuple[str, ...] = ()
    quantized: str = ""
    residence: Residence = IN_MEMORY

    @property
    def device(self) -> torch.device:
        """Device of the module's weights."""
        return next(self.module.parameters()).device

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of the engine in file order."""
        return self.source.tensors

    def weights(self) -> Iterator[tuple[str, Torch]]:
        """Yield the original weights of the module by name, one after another."""
        return self.residence.weights(weights_of(self.module))

    def weight_parts(self) -> Iterator[tuple[str, Torch]]:
        """Yield the same in parts, in any type of floats."""
        return self.residence.parts(weights_of(self.module))

    def each(self, jobs: Sequence[Job[Result]], advance: Advance) -> Iterator[Result]:
        """Run jobs that each run the module; see `Residence.each`."""
        return self.residence.each(jobs, advance)

    def differentiate(self, forward: Callable[[], Torch], slope: Callable[[Torch], Torch]) -> None:
        """Run a forward and a backward pass within a job; see `Residence.differentiate`."""
        self.residence.differentiate(forward, slope)
