"""Replacement of a torch module's weights within a `with` block."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch

from bitwright.compress.codecs.packed_cache import Levels, matrix_shape
from bitwright.compress.in_place.dropping import Dropped, without
from bitwright.compress.in_place.rounded_inputs import RoundsInputs, inputs_rounded, with_inputs
from bitwright.compress.models.architectures import weights_of
from bitwright.compress.models.model import Model
from bitwright.compress.models.source import Floats
from bitwright.spaces import DROP, Format, Tensor, expert_of

Weights = Mapping[str, Callable[[], Floats]]


@contextmanager
def applied(model: Model, weights: Weights) -> Iterator[Mapping[str, torch.Tensor]]:
    """Write the matrix `(n_rows, n_columns)`, in engine order, that each function in `weights` returns into the parameters of its engine tensor.

    Routers cannot choose an expert whose weights are `Dropped`, and the inputs of a layer with `RoundsInputs` are rounded. The original
    weights are restored when the block ends; they are yielded to it by parameter name. Peak memory is twice that of the changed parameters.
    """
    saved = {name: model.module.get_parameter(name).detach().clone() for tensor in weights for name in _parameters(model, tensor)}
    try:
        with torch.no_grad():
            for name, matrix in weights.items():
                _write(model, name, torch.from_numpy(matrix()))
        inputs = {name: given.form for name, given in weights.items() if isinstance(given, RoundsInputs)}
        gone = {given.expert: given.heir for given in weights.values() if isinstance(given, Dropped)}
        with without(model, gone), inputs_rounded(model, inputs):
            yield saved
    finally:
        with torch.no_grad():
            for name, original in saved.items():
                model.module.get_parameter(name).copy_(original)


@contextmanager
def rounded_as(model: Model, types: Mapping[str, torch.dtype]) -> Iterator[None]:
    """Round the weights in `types` to the values of their type within the block; the original of each changed weight is kept in memory."""
    weights, saved = weights_of(model.module), dict[str, torch.Tensor]()
    try:
        with torch.no_grad():
            for name, dtype in ((name, types[name]) for name in weights if name in types):
                rounded = weights[name].to(dtype).to(weights[name])
                if not torch.equal(rounded, weights[name]):
                    saved[name] = weights[name].detach().clone()
                    weights[name].copy_(rounded)
        yield
    finally:
        with torch.no_grad():
            for name, original in saved.items():
                weights[name].copy_(original)


def planned_weights(model: Model, packed_tensors: Levels, *, formats: Mapping[str, Format]) -> Weights:
    """Return the weights of each tensor in `formats` (tensor → format), in that format; tensors in their stored format are left out."""
    changed = [tensor for tensor in model.tensors if tensor.name in formats and formats[tensor.name].name != tensor.stored]
    quantized: Weights = {
        tensor.name: with_inputs(formats[tensor.name], partial(packed_tensors.weights, tensor, formats[tensor.name]))
        for tensor in changed
        if formats[tensor.name] != DROP
    }
    return {**quantized, **{tensor.name: dropped(packed_tensors, tensor) for tensor in changed if formats[tensor.name] == DROP}}


def dropped(packed_tensors: Levels, tensor: Tensor) -> Dropped:
    """Return the zero weights of a tensor whose expert is dropped."""
    expert = expert_of(tensor.name)
    return Dropped(matrix_shape(tensor), expert, packed_tensors.heirs.get(expert, -1))


def _parameters(model: Model, tensor: str) -> set[str]:
    return {piece.parameter for piece in model.pieces[tensor]}


def _write(model: Model, name: str, matrix: torch.Tensor) -> None:
    start = 0
    for piece in model.pieces[name]:
        parameter = model.module.get_parameter(piece.parameter)
        piece.from_engine(parameter, matrix[start : start + piece.n_rows].to(parameter.device))
        start += piece.n_rows
