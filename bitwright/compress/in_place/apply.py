"""Weights of a plan and of a choice, in a torch module for as long as a `with` block lasts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from bitwright.compress.codecs.packed_cache import PackedTensors, matrix_shape
from bitwright.compress.in_place.dropping import DroppedWeights
from bitwright.compress.in_place.packed_weights import PackedWeights
from bitwright.compress.in_place.rounded_inputs import with_inputs
from bitwright.compress.in_place.swapping import WeightSwapper, swapping
from bitwright.compress.models.model import Model
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.residence import Weights
from bitwright.errors import ModelError
from bitwright.spaces import DROP, Choice, Format, Space, Tensor, chosen_cache, expert_of


@contextmanager
def applied(model: Model, weights: Weights) -> Iterator[Mapping[str, torch.Tensor]]:
    """Give the module other `weights` for as long as the block lasts, see `WeightSwapper.load`; yield the original ones, by name of the parameter."""
    with swapping(model) as swapper:
        swapper.load(weights)
        yield swapper.originals


@contextmanager
def rounded_as(model: Model, types: Mapping[str, torch.dtype]) -> Iterator[None]:
    """Round the weights in `types` to the values of their type within the block; the original of each changed weight is kept in memory.

    Raises:
        ModelError: the model is streamed, and a weight would change.
    """
    if model.residence.is_streamed:
        _require_rounded(model, types)
        yield
        return
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


def _require_rounded(model: Model, types: Mapping[str, torch.dtype]) -> None:
    changed = [name for name, weight in model.weights() if name in types and not torch.equal(weight.to(types[name]).to(weight), weight)]
    if changed:
        raise ModelError(
            f"A streamed model is compared with one whose weights outside of the plan are the same; that one rounds {changed[0]} to "
            f"{types[changed[0]]}: give more --search-memory."
        )


def planned_weights(model: Model, packed_tensors: PackedTensors, *, formats: Mapping[str, Format]) -> Weights:
    """Return the weights of each tensor in `formats` (tensor → format), in that format; tensors in their stored format are left out."""
    changed = [tensor for tensor in model.tensors if tensor.name in formats and formats[tensor.name].name != tensor.stored]
    quantized: Weights = {
        tensor.name: with_inputs(formats[tensor.name], PackedWeights(packed_tensors, tensor, formats[tensor.name]))
        for tensor in changed
        if formats[tensor.name] != DROP
    }
    return {**quantized, **{tensor.name: dropped(packed_tensors, tensor) for tensor in changed if formats[tensor.name] == DROP}}


def dropped(packed_tensors: PackedTensors, tensor: Tensor) -> DroppedWeights:
    """Return the zero weights of a tensor whose expert is dropped."""
    expert = expert_of(tensor.name)
    return DroppedWeights(matrix_shape(tensor), expert, packed_tensors.replacements.get(expert, -1))


def choice_loader(swapper: WeightSwapper, model: Model, levels: PackedTensors, space: Space) -> Callable[[Choice], None]:
    """Return a function that loads a choice `(n_units,)` of the space: its weights, and the types of its cache.

    The model must have its original weights now: the replacements of dropped experts are found by them.
    """
    if any(form == DROP and offered.any() for form, offered in zip(space.formats, space.offered.T, strict=True)):
        _ = levels.replacements

    def load(choice: Choice) -> None:
        swapper.load(chosen_weights(model, levels, space, choice), chosen_cache(space, choice))

    return load


def chosen_weights(model: Model, levels: PackedTensors, space: Space, choice: Choice) -> Weights:
    """Return the weights of a choice `(n_units,)` of the space; tensors in their stored format are left out."""
    formats = {tensor.name: space.formats[f] for unit, f in zip(space.units, choice, strict=True) for tensor in unit.tensors}
    return planned_weights(model, levels, formats=formats)
