"""Conversion of a module on the meta device to the same module with packed layers, as a native checkpoint holds them.

Layers are called by their names in the module, on disk too. A linear layer or embedding becomes a packed one. A feed-forward matrix whose channels
lie in parts, and a stack of experts that lie one by one, are assembled of packed matrices at their own names when they are used.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bitwright.compress import FLOAT_TYPES, ROUTER, STORED_TYPES, ParameterSlice, StoredTensor, module_tensors, n_experts_used_of, weights_of
from bitwright.engines.native.absent_attention import take_attention
from bitwright.engines.native.packed_modules import AssembledLinear, Block, PackedEmbedding, PackedLinear, PackedMatrix, PackedStack, WidenedLinear
from bitwright.engines.native.rerouted_router import ReroutedRouter, router_path
from bitwright.errors import ModelError
from bitwright.spaces import NATIVE_FORMATS, Absence, DroppedExpert, Format, Tensor, TensorPart, discover, into_channels, into_experts

_EXPERT = re.compile(r"(.+)\.experts\.(\d+)\.\w+")
_WEIGHT = ".weight"
_SCALE = "scalar_embed_scale"  # Gemma's factor of its embeddings
_FLOATS = {form.name: form for form in NATIVE_FORMATS if form.name in FLOAT_TYPES}
_DTYPES = {**FLOAT_TYPES, "U8": torch.uint8}


def pack(module: PreTrainedModel, formats: Mapping[str, Format], entries: Mapping[str, StoredTensor], *, dtype: torch.dtype) -> None:
    """Replace the layers of `module` that the checkpoint holds packed, or in narrower floats than `dtype`, by empty packed layers.

    `formats` are those of the packed layers and `entries` the tensors on disk, both by their names in the module.

    Raises:
        ModelError: the checkpoint is of another model, or lacks layers.
    """
    take_attention(module, formats)
    if module._can_set_experts_implementation():
        module.set_experts_implementation("eager")
    tensors, pieces = module_tensors(module, apart=False)
    matrices = [(tensor, pieces[tensor.name][0]) for unit in discover(tensors) for tensor in unit.tensors]
    _reroute(module, formats, [tensor.name for tensor in tensors if tensor.kind == ROUTER])
    ties = tied_layers(module)
    as_saved = {tensor.name.removesuffix(_WEIGHT) for tensor in tensors if len(tensor.shape) == 2 and not pieces[tensor.name][0].transposed}
    kept = dict(formats) | {layer: form for layer, form in _floats(entries, as_saved, dtype).items() if layer not in formats}
    kept |= {target: kept[source] for target, source in ties.items() if source in kept}
    done = {layer for layer, form in kept.items() if isinstance(form, Absence)}
    for name, layer in list(module.named_modules()):
        packed = _packed(layer, name, kept, dtype)
        if packed is not layer:
            module.set_submodule(name, packed)
            done.add(name)
    done |= _assemble(module, matrices, kept, dtype)
    foreign = sorted(set(formats) - done)
    if foreign:
        raise ModelError(f"A native checkpoint may name only layers of its model; '{foreign[0]}' is not one: build it again.")
    _require_whole(module, entries, frozenset(module.all_tied_weights_keys))


def tied_layers(module: PreTrainedModel) -> dict[str, str]:
    """Return the layers with a tied weight: name → name of the layer that owns it."""
    tied: Mapping[str, str] = module.all_tied_weights_keys
    return {target.removesuffix(_WEIGHT): source.removesuffix(_WEIGHT) for target, source in tied.items()}


def _floats(entries: Mapping[str, StoredTensor], as_saved: set[str], dtype: torch.dtype) -> dict[str, Format]:
    """Return the format of layers stored in floats: of the matrices that lie there `as_saved` by transformers those that are narrower than `dtype`,
    and all others: transposed ones, parts and experts.
    """
    found = {}
    for name, entry in entries.items():
        layer = name.removesuffix(_WEIGHT)
        is_matrix = layer != name and entry.dtype in _FLOATS and len(entry.shape) == 2
        if is_matrix and (layer not in as_saved or _DTYPES[entry.dtype].itemsize < dtype.itemsize):
            found[layer] = _FLOATS[entry.dtype]
    return found


def _packed(layer: nn.Module, name: str, kept: Mapping[str, Format], dtype: torch.dtype) -> nn.Module:
    """Return the packed replacement of `layer`, or `layer` itself if it is not stored packed."""
    if name not in kept:
        return layer
    if isinstance(layer, nn.Linear):
        shape = layer.out_features, layer.in_features
        is_float = kept[name].name in _FLOATS
        return WidenedLinear(kept[name], layer, dtype=dtype) if is_float else PackedLinear(kept[name], shape, layer.bias)
    if isinstance(layer, Conv1D):
        n_inputs, n_outputs = layer.weight.shape
        return PackedLinear(kept[name], (n_outputs, n_inputs), layer.bias)
    if isinstance(layer, nn.Embedding) and _looks_up_rows(layer):
        shape = layer.num_embeddings, layer.embedding_dim
        return PackedEmbedding(kept[name], shape, scale=float(vars(layer).get(_SCALE, 1.0)), dtype=dtype)
    return layer


def _looks_up_rows(layer: nn.Embedding) -> bool:
    """Return whether an embedding returns the rows of the ids that it is given; OPT's of positions counts them from an attention mask."""
    return type(layer).forward is nn.Embedding.forward or _SCALE in vars(layer)


def _assemble(module: PreTrainedModel, matrices: Sequence[tuple[Tensor, ParameterSlice]], kept: Mapping[str, Format], dtype: torch.dtype) -> set[str]:
    """Replace stacks of experts, and matrices whose channels lie in parts, by what is assembled of packed matrices; return the names of those.

    `matrices` are the tensors that can be quantized, each with the first slice of its parameter.

    Raises:
        ModelError: an expert or a part is missing.
    """
    done: set[str] = set()
    stacks: dict[str, list[tuple[Tensor, ParameterSlice]]] = {}
    for tensor, piece in matrices:
        if len(tensor.shape) == 3:
            stacks.setdefault(piece.parameter, []).append((tensor, piece))
            continue
        parts = [part for part in into_channels(tensor) if _layer(part) in kept]
        if parts and _layer(parts[0]) != tensor.name.removesuffix(_WEIGHT):
            path = tensor.name.removesuffix(_WEIGHT)
            linear = module.get_submodule(path)
            blocks = _blocks(module, into_channels(tensor), kept, first_row=0, done=done)
            n_rows, n_columns = tensor.shape
            module.set_submodule(path, AssembledLinear(blocks, (n_rows, n_columns), vars(linear)["_parameters"]["bias"]))
    for parameter, inside in stacks.items():
        n_experts, _, n_columns = inside[0][0].shape
        experts: list[list[Block]] = [[] for _ in range(n_experts)]
        for tensor, piece in inside:
            for expert, whole in enumerate(into_experts(tensor)):
                parts = [part for part in into_channels(tensor) if part.expert == expert]
                found = parts if any(_layer(part) in kept for part in parts) else [whole]
                experts[expert] += _blocks(module, found, kept, first_row=piece.start, done=done)
        shape = sum(tensor.shape[1] for tensor, _ in inside), n_columns
        owner, _, leaf = parameter.rpartition(".")
        del module.get_submodule(owner)._parameters[leaf]
        module.get_submodule(owner).add_module(leaf, PackedStack(experts, shape, transposed=inside[0][1].transposed, dtype=dtype))
    return done


def _blocks(module: nn.Module, parts: Sequence[TensorPart], kept: Mapping[str, Format], *, first_row: int, done: set[str]) -> list[Block]:
    """Put an empty packed matrix for each of `parts` that is not absent where its name says, and note the names in `done`."""
    blocks = []
    for part in parts:
        layer = _layer(part)
        if layer not in kept:
            raise ModelError(f"A native checkpoint must hold every expert and every part of one; it lacks {layer}: build it again.")
        if not isinstance(kept[layer], Absence):
            n_rows, n_columns = part.tensor.shape
            matrix = PackedMatrix(kept[layer], (n_rows, n_columns))
            _put(module, layer, matrix)
            blocks.append(Block(matrix, (first_row + part.rows[0], first_row + part.rows[1]), part.columns))
            done.add(layer)
    return blocks


def _put(module: nn.Module, path: str, layer: nn.Module) -> None:
    """Add a module at a path, of which the owners may be missing."""
    *owners, leaf = path.split(".")
    for name in owners:
        inner = vars(module)["_modules"].get(name)
        if inner is None:
            inner = nn.Module()
            module.add_module(name, inner)
        module = inner
    module.add_module(leaf, layer)


def _layer(part: TensorPart) -> str:
    return part.tensor.name.removesuffix(_WEIGHT)


def _reroute(module: PreTrainedModel, formats: Mapping[str, Format], routers: Sequence[str]) -> None:
    """Prevent routers, named by their parameters, from choosing dropped experts."""
    gone: dict[str, dict[int, int]] = {}
    for layer, form in formats.items():
        expert = _EXPERT.fullmatch(layer)
        if not isinstance(form, DroppedExpert):
            continue
        if expert is None:
            raise ModelError(f"Only experts can be dropped; config.json also drops {layer}: build the checkpoint again.")
        gone.setdefault(expert[1], {})[int(expert[2])] = form.replacement
    for block, replacements in gone.items():
        path = router_path(module, next(name for name in routers if name.startswith(f"{block}.")))
        router = ReroutedRouter(module.get_submodule(path), replacements, n_at_once=n_experts_used_of(module.config))
        module.set_submodule(path, router)


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
        unpacked = FLOAT_TYPES if weight.is_floating_point() else STORED_TYPES
        right_type = _DTYPES.get(entry.dtype) == weight.dtype if name in packed else entry.dtype in unpacked
        if entry.shape != tuple(weight.shape) or not right_type:
            raise ModelError(
                f"A native checkpoint must hold every weight as its configuration says; {name} is {entry.dtype} "
                f"{'×'.join(map(str, entry.shape))} and not {expected}: download or build it again."
            )
