"""From the skeleton of a model and what a native checkpoint holds to the same model with packed layers.

Layers are called by their names in the module. Checkpoints of Mixtral have older ones, which are translated here.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from bitwright.compress.architectures import weights_of
from bitwright.compress.checkpoint import MIXTRAL
from bitwright.compress.floats import FLOAT_TYPES
from bitwright.compress.packed_modules import PackedEmbedding, PackedExpert, PackedExperts, PackedLinear, PackedMatrix
from bitwright.compress.rerouted_router import ReroutedRouter
from bitwright.compress.safetensors_file import Entry
from bitwright.errors import ModelError
from bitwright.spaces import INTEGER_FORMATS, Absence, Format

#: from names on disk to names in the module: patterns as `re.sub` takes them
RENAMED = (
    (r"\.block_sparse_moe\.", ".mlp."),
    *((rf"\.experts\.(\d+)\.{older}", rf".experts.\1.{name}") for name, older in MIXTRAL.items()),
)
_ROLES = ("gate_proj", "up_proj", "down_proj")
_ROUTER = "gate"
_EXPERT = re.compile(r"(.+)\.experts\.(\d+)\.\w+")
_STACKS = {"gate_up_proj", "down_proj"}
_SCALE = "scalar_embed_scale"  # what Gemma multiplies its embeddings by
_FLOATS = {form.name: form for form in INTEGER_FORMATS if form.name in FLOAT_TYPES}
_DTYPES = {**FLOAT_TYPES, "U8": torch.uint8}


def in_module(name: str) -> str:
    """The name in the module of a layer or tensor on disk."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def pack(module: PreTrainedModel, formats: Mapping[str, Format], entries: Mapping[str, Entry], *, dtype: torch.dtype) -> None:
    """Put packed layers, still empty, in place of those of `module` that the checkpoint holds packed, or in narrower floats than `dtype`.

    `formats` are those of the packed layers and `entries` the tensors on disk, both by their names in the module.

    Raises:
        ModelError: the checkpoint is not one of this model, or lacks some of it.
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
    """The layers that have the weight of another: their name and its."""
    tied: Mapping[str, str] = module.all_tied_weights_keys
    return {target.removesuffix(".weight"): source.removesuffix(".weight") for target, source in tied.items()}


def _floats(entries: Mapping[str, Entry], dtype: torch.dtype) -> dict[str, Format]:
    """Layers kept in floats narrower than those computed with, and the experts that are kept as floats at all."""
    found = {}
    for name, entry in entries.items():
        layer = name.removesuffix(".weight")
        if layer != name and entry.dtype in _FLOATS and (_DTYPES[entry.dtype].itemsize < dtype.itemsize or ".experts." in layer):
            found[layer] = _FLOATS[entry.dtype]
    return found


def _packed(layer: nn.Module, name: str, kept: Mapping[str, Format], dtype: torch.dtype) -> nn.Module:
    """What stands in for `layer`: itself where it is not kept packed."""
    if isinstance(layer, nn.Linear) and name in kept:
        return PackedLinear(kept[name], (layer.out_features, layer.in_features), layer.bias)
    if isinstance(layer, nn.Embedding) and name in kept:
        shape = layer.num_embeddings, layer.embedding_dim
        return PackedEmbedding(kept[name], shape, scale=float(vars(layer).get(_SCALE, 1.0)), dtype=dtype)
    if {key for key, _ in layer.named_parameters(recurse=False)} == _STACKS and f"{name}.0.gate_proj" in kept:
        return _packed_experts(layer, name, kept)
    return layer


def _packed_experts(layer: nn.Module, name: str, kept: Mapping[str, Format]) -> PackedExperts:
    gate_up, down = layer.get_parameter("gate_up_proj"), layer.get_parameter("down_proj")
    n_experts, n_hidden, n_inner = down.shape
    if gate_up.shape != (n_experts, 2 * n_inner, n_hidden):
        raise ModelError(f"Experts must be gated and stored row by row; those of {name} are not: bitwright cannot load this model packed.")
    shapes = {"gate_proj": (n_inner, n_hidden), "up_proj": (n_inner, n_hidden), "down_proj": (n_hidden, n_inner)}
    experts = {}
    for i in range(n_experts):
        if all(isinstance(kept.get(f"{name}.{i}.{role}"), Absence) for role in _ROLES):
            continue
        missing = [role for role in _ROLES if f"{name}.{i}.{role}" not in kept]
        if missing:
            raise ModelError(f"A native checkpoint must hold every expert; it lacks {name}.{i}.{missing[0]}: build it again.")
        matrices = {role: PackedLinear(kept[f"{name}.{i}.{role}"], shapes[role], None) for role in _ROLES}
        experts[i] = PackedExpert(matrices, layer.get_submodule("act_fn"))
    return PackedExperts(experts)


def _reroute(module: PreTrainedModel, formats: Mapping[str, Format]) -> None:
    """Keep routers from choosing experts that were dropped."""
    gone: dict[str, dict[int, int]] = {}
    for layer, form in formats.items():
        expert = _EXPERT.fullmatch(layer)
        if isinstance(form, Absence) and expert is None:
            raise ModelError(f"Only experts can be dropped; config.json says so of {layer}: build the checkpoint again.")
        if isinstance(form, Absence) and expert is not None:
            gone.setdefault(expert[1], {})[int(expert[2])] = form.heir
    n_at_once = int(module.config.get_text_config().to_dict().get("num_experts_per_tok") or 0)
    for block, heirs in gone.items():
        router = module.get_submodule(f"{block}.{_ROUTER}")
        module.set_submodule(f"{block}.{_ROUTER}", ReroutedRouter(router, heirs, n_at_once=n_at_once))


def _require_whole(module: PreTrainedModel, entries: Mapping[str, Entry], tied: frozenset[str]) -> None:
    """Refuse what transformers would fill up with random numbers: a tensor that is missing, of another shape, or of another type.

    Raises:
        ModelError: see above.
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
