"""Activation quantization of an engine, simulated in a torch module within a `with` block.

    x ← type(x · steps / a) · a / steps,   a the largest magnitude of the token

as `fake_quantize` of compressed-tensors 0.20 computes it in a model that `from_pretrained` loads, and 8-bit matrix kernels do.
Gradients pass through the rounding unchanged (straight-through estimator; Bengio et al., 2013).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor as Torch
from torch.utils.hooks import RemovableHandle

from bitwright.compress.models.model import Model
from bitwright.compress.models.source import Floats
from bitwright.spaces import ByteFormat, Format

_INT8 = (-128, 127)


@dataclass(frozen=True)
class RoundsInputs:
    """Weights of a layer whose inputs are rounded to the type of `form`."""

    form: ByteFormat
    weights: Callable[[], Floats]

    def __call__(self) -> Floats:
        """Return the weights."""
        return self.weights()


def with_inputs(form: Format | str, weights: Callable[[], Floats]) -> Callable[[], Floats]:
    """Wrap `weights` in `RoundsInputs` if the format quantizes activations."""
    return RoundsInputs(form, weights) if isinstance(form, ByteFormat) and form.input_steps else weights


class InputRounding:
    """Input rounding of layers by forward hooks, which can be changed at any time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._hooks: dict[str, tuple[ByteFormat, RemovableHandle]] = {}

    def set_formats(self, formats: Mapping[str, Format]) -> None:
        """Round the inputs of the layers of `formats` (tensor → format) whose format quantizes activations, and of no others."""
        rounding = {tensor: form for tensor, form in formats.items() if isinstance(form, ByteFormat) and form.input_steps}
        wanted = {name: form for tensor, form in rounding.items() for name in self._layers(tensor)}
        for name in [name for name, (form, _) in self._hooks.items() if wanted.get(name) != form]:
            self._hooks.pop(name)[1].remove()
        for name in wanted.keys() - self._hooks.keys():
            layer = self._model.module.get_submodule(name)
            self._hooks[name] = wanted[name], layer.register_forward_pre_hook(partial(_round_first, wanted[name]))

    def _layers(self, tensor: str) -> set[str]:
        """Return the linear layers that a tensor is the weight of.

        Raises:
            ValueError: the tensor belongs to an expert, which is not a module of its own.
        """
        names = {piece.parameter.removesuffix(".weight") for piece in self._model.pieces[tensor]}
        if any(piece.expert >= 0 for piece in self._model.pieces[tensor]):
            raise ValueError(f"the inputs of {tensor} cannot be rounded")
        return names


def rounded_inputs(x: Torch, form: ByteFormat) -> Torch:
    """Round inputs `(..., n_columns)` to 8 bits with a scale per token."""
    step = x.detach().abs().amax(dim=-1, keepdim=True) / form.input_steps
    scaled = torch.where(step > 0, x.detach() / step, 0.0)
    if form.kind == "int":
        found = scaled.round().clamp(*_INT8)
    else:
        found = scaled.clamp(-form.input_steps, form.input_steps).to(torch.float8_e4m3fn).to(x.dtype)
    return x + (found * step - x).detach() if x.requires_grad else found * step


def _round_first(form: ByteFormat, layer: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001
    return (rounded_inputs(given[0], form), *given[1:])
