"""Conversion of a module on the meta device to the same module with packed layers, as a native checkpoint holds them.

Layers are called by their names in the module, on disk too.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from bitwright.compress import FLOAT_TYPES, StoredTensor, weights_of
from bitwright.engines.native.packed_modules import PackedEmbedding, PackedExpert, PackedExperts, PackedLinear, PackedMatrix, PackedParts
from bitwright.engines.native.rerouted_router import ReroutedRouter
from bitwright.errors import ModelError
from bitwright.spaces import INTEGER_FORMATS, Absence, DroppedExpert, Format, channel_ranges

_ROLES = ("gate_proj", "up_proj", "down_proj")
_ROUTER, _PART, _ACTIVATION = "gate", "part", "act_fn"
_EXPERT = re.compile(r"(.+)\.experts\.(\d+)\.\w+")
_REPLACED = re.compile(r"\.(experts|part\d+)\.")  # replaces the module's fused parameter
_STACKS = {"gate_up_proj", "down_proj"}
_SCALE = "scalar_embed_scale"  # Gemma's factor of its embeddings
_FLOATS = {form.name: form for form in INTEGER_FORMATS if form.name in FLOAT_TYPES}
_DTYPES = {**FLOAT_TYPES, "U8": torch.uint8}


def pack(module: PreTrainedModel, formats: Mapping[str, Format], entries: Mapping[str, StoredTensor], *, dtype: torch.dtype) -> None:
    """Replace the layers of `module` that the checkpoint holds packed, or in narrower floats than `dtype`, by empty packed layers.

    `formats` are those of the packed layers and `entries` the tensors on disk, both by their names in the module.

    Raises:
        ModelError: the checkpoint is of another model, or lacks layers.
    """
    _reroute(module, formats)
    ties = tied_layers(module)
    kept = dict(formats) | {layer: form for layer, form in _floats(entries, dtype).items() if layer not in formats}
    kept |= {target: kept[source] for target, source in ties.items() if source in kept}
    done = {layer for layer, form in kept.items() if isinstance(form, Absence)}
    for name, layer in list(module.named_modules()):
        packed = _packed(layer, name, kept, dtype)
        if packed is not layer:
            module.set_submodule(name, packed)
            done |= {name, *(f"{name}.{inner}" for inner, _ in packed.named_modules())}
    foreign = sorted(set(formats) - done)
    if foreign:
        raise ModelError(f"A native checkpoint may name only layers of its model; '{foreign[0]}' is not one: build it again.")
    _require_whole(module, entries, frozenset(f"{layer}.weight" for layer in ties))


def tied_layers(module: PreTrainedModel) -> dict[str, str]:
    """Return the layers with a tied weight: name → name of the layer that owns it."""
    tied: Mapping[str, str] = module.all_tied_weights_keys
    return {target.removesuffix(".weight"): source.removesuffix(".weight") for target, source in tied.items()}


def _floats(entries: Mapping[str, StoredTensor], dtype: torch.dtype) -> dict[str, Format]:
    """Return the format of layers stored in floats narrower than `dtype`, and of all experts and channel parts stored as floats."""
    found = {}
    for name, entry in entries.items():
        layer = name.removesuffix(".weight")
        if layer != name and entry.dtype in _FLOATS and (_DTYPES[entry.dtype].itemsize < dtype.itemsize or _REPLACED.search(layer)):
            found[layer] = _FLOATS[entry.dtype]
    return found


def _packed(layer: nn.Module, name: str, kept: Mapping[str, Format], dtype: torch.dtype) -> nn.Module:
    """Return the packed replacement of `layer`, or `layer` itself if it is not stored packed."""
    if isinstance(layer, nn.Linear) and name in kept:
        return PackedLinear(kept[name], (layer.out_features, layer.in_features), layer.bias)
    if isinstance(layer, nn.Embedding) and name in kept:
        shape = layer.num_embeddings, layer.embedding_dim
        return PackedEmbedding(kept[name], shape, scale=float(vars(layer).get(_SCALE, 1.0)), dtype=dtype)
    stacked = {key for key, _ in layer.named_parameters(recurse=False)} == _STACKS
    if stacked and any(f"{name}.0.{part}gate_proj" in kept for part in ("", f"{_PART}0.")):
        return _packed_experts(layer, name, kept)
    if f"{name}.{_PART}0.gate_proj" in kept and {*_ROLES, _ACTIVATION} <= {key for key, _ in layer.named_children()}:
        gate = layer.get_submodule("gate_proj").get_parameter("weight")
        return _packed_parts(layer.get_submodule(_ACTIVATION), name, kept, shape=tuple(gate.shape))
    return layer


def _packed_experts(layer: nn.Module, name: str, kept: Mapping[str, Format]) -> PackedExperts:
    gate_up, down = layer.get_parameter("gate_up_proj"), layer.get_parameter("down_proj")
    n_experts, n_hidden, n_inner = down.shape
    if gate_up.shape != (n_experts, 2 * n_inner, n_hidden):
        raise ModelError(f"Experts must be gated and stored row by row; those of {name} are not: bitwright cannot load this model packed.")
    activation, experts = layer.get_submodule(_ACTIVATION), dict[int, PackedExpert | PackedParts]()
    for i in range(n_experts):
        if f"{name}.{i}.{_PART}0.gate_proj" in kept:
            experts[i] = _packed_parts(activation, f"{name}.{i}", kept, shape=(n_inner, n_hidden))
        elif not _is_gone(f"{name}.{i}", kept):
            experts[i] = _packed_expert(activation, f"{name}.{i}", kept, shape=(n_inner, n_hidden))
    return PackedExperts(experts)


def _packed_parts(activation: nn.Module, name: str, kept: Mapping[str, Format], *, shape: tuple[int, ...]) -> PackedParts:
    """Return the packed parts of a feed-forward block of `shape` `(n_channels, n_hidden)`."""
    parts = {}
    for i, (start, stop) in enumerate(channel_ranges(shape[0])):
        if not _is_gone(f"{name}.{_PART}{i}", kept):
            parts[f"{_PART}{i}"] = _packed_expert(activation, f"{name}.{_PART}{i}", kept, shape=(stop - start, shape[1]))
    return PackedParts(parts)


def _is_gone(name: str, kept: Mapping[str, Format]) -> bool:
    return all(isinstance(kept.get(f"{name}.{role}"), Absence) for role in _ROLES)


def _packed_expert(activation: nn.Module, name: str, kept: Mapping[str, Format], *, shape: tuple[int, int]) -> PackedExpert:
    """Return a packed expert of `shape` `(n_channels, n_hidden)`."""
    missing = [role for role in _ROLES if f"{name}.{role}" not in kept]
    if missing:
        raise ModelError(f"A native checkpoint must hold every expert and every part of one; it lacks {name}.{missing[0]}: build it again.")
    shapes = {"gate_proj": shape, "up_proj": shape, "down_proj": shape[::-1]}
    return PackedExpert({role: PackedLinear(kept[f"{name}.{role}"], shapes[role], None) for role in _ROLES}, activation)


def _reroute(module: PreTrainedModel, formats: Mapping[str, Format]) -> None:
    """Prevent routers from choosing dropped experts."""
    gone: dict[str, dict[int, int]] = {}
    for layer, form in formats.items():
        expert = _EXPERT.fullmatch(layer)
        if not isinstance(form, DroppedExpert):
            continue
        if expert is None:
            raise ModelError(f"Only experts can be dropped; config.json also drops {layer}: build the checkpoint again.")
        gone.setdefault(expert[1], {})[int(expert[2])] = form.replacement
    n_at_once = int(module.config.get_text_config().to_dict().get("num_experts_per_tok") or 0)
    for block, replacements in gone.items():
        router = module.get_submodule(f"{block}.{_ROUTER}")
        module.set_submodule(f"{block}.{_ROUTER}", ReroutedRouter(router, replacements, n_at_once=n_at_once))


def _require_whole(module: PreTrainedModel, entries: Mapping[str, StoredTensor], tied: frozenset[str]) -> None:
    """Require every tensor in its shape and type: transformers would fill a missing one with random numbers.

    Raises:
        ModelError: a tensor is missing, or has another shape or type.
    """
    packed = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, PackedMatrix)}
    for name, weight in weights_of(module).items():
        if name in tied:
            continue
        expected: Any = "×".join(map(str, weight.shape))
        if name not in entries:
            raise ModelError(f"A native checkpoint must hold every weight of its model; it lacks {name}: download or build it again.")
        entry = entries[name]
        right_type = _DTYPES.get(entry.dtype) == weight.dtype if name in packed else entry.dtype in FLOAT_TYPES
        if entry.shape != tuple(weight.shape) or not right_type:
            raise ModelError(
                f"A native checkpoint must hold every weight as its configuration says; {name} is {entry.dtype} "
                f"{'×'.join(map(str, entry.shape))} and not {expected}: download or build it again."
            )
