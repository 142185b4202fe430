"""View of a model as its transformers module: one tensor for each parameter, under the module's own name.

A matrix is `model.layers.3.self_attn.q_proj.weight`. Experts that are saved one by one and stacked in the module, gate on up, are two stacks here,
`…mlp.experts.gate_proj` and `…mlp.experts.up_proj`; any other stack is one. What is not a matrix or a stack is a vector of all its weights.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from bitwright.compress.models.checkpoints.conversions import Outgoing
from bitwright.compress.models.checkpoints.hugging_face import Rows
from bitwright.compress.models.float_types import FLOAT_TYPES, float_bytes, holds
from bitwright.compress.models.gguf.gguf_rows import GgufRows
from bitwright.compress.models.gguf.reader import fingerprint
from bitwright.compress.models.headers import Headers, Outline
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.opening import Checkpoint, FolderCheckpoint
from bitwright.compress.models.source import NO_SETTINGS, Bytes, Floats, Source
from bitwright.compress.models.structure import ROUTER, STACKED, kinds_of, n_stacked
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.compress.models.view import Bound, View
from bitwright.spaces import Tensor, discover

_FUSED, _HALVES = "gate_up_proj", ("gate_proj", "up_proj")
_GATED = (*_HALVES, "down_proj")
#: tensor → the slices of the parameters that it is made of
Pieces = Mapping[str, tuple[ParameterSlice, ...]]


def module_tensors(module: PreTrainedModel) -> tuple[tuple[Tensor, ...], Pieces]:
    """Return the tensors of a module, which may be on the meta device, without their formats, and their slices of its parameters."""
    kinds, outgoing = kinds_of(module), Outgoing(module)
    tensors, pieces = [], dict[str, tuple[ParameterSlice, ...]]()
    for name, weight in weights_of(module).items():
        n_experts = n_stacked(weight, kinds[name])
        if not n_experts:
            shape = tuple(weight.shape) if weight.dim() == 2 else (weight.numel(),)
            tensors.append(Tensor(name, shape, "", kinds[name]))
            pieces[name] = (ParameterSlice(name, -1, range(weight.shape[0] if weight.dim() else 1)),)
            continue
        names = _parts(name, len(outgoing.experts(name)))
        n_rows = weight.shape[1] // len(names)
        for i, part in enumerate(names):
            tensors.append(Tensor(part, (n_experts, n_rows, weight.shape[2]), "", kinds[name]))
            pieces[part] = tuple(ParameterSlice(name, expert, range(i * n_rows, (i + 1) * n_rows)) for expert in range(n_experts))
    return tuple(_with_gated_role(tensor, pieces) for tensor in tensors), pieces


def _with_gated_role(tensor: Tensor, pieces: Pieces) -> Tensor:
    """Return a stack with its role in a gated feed-forward part where gate and up are stacks of their own."""
    owner, _, leaf = tensor.name.rpartition(".")
    if not tensor.kind.endswith(STACKED) or leaf not in _GATED or not all(f"{owner}.{other}" in pieces for other in _GATED):
        return tensor
    return replace(tensor, kind=f"ffn_{leaf.removesuffix('_proj')}{STACKED}")


def _parts(stack: str, n_parts: int) -> tuple[str, ...]:
    owner, _, leaf = stack.rpartition(".")
    return tuple(f"{owner}.{half}" for half in _HALVES) if n_parts == 2 and leaf == _FUSED else (stack,)


class ModuleSource(Source):
    """Parameters of a transformers module as tensors, read on demand.

    Matrices that can be quantized are stored in the narrowest of BF16, F16 and F32 that loses nothing of any of them, routers in F32, and what else
    stays as it is in the narrowest type of its own.
    """

    metadata = ()

    def __init__(self, name: str, module: PreTrainedModel, rows: Rows, settings: Mapping[str, str] = NO_SETTINGS) -> None:
        """Take a `module`, which may be on the meta device without weights, and a reader of its `rows`."""
        self.name, self.architecture, self.settings = name, str(module.config.model_type), settings
        self.rows, self._config = rows, module.config
        tensors, self.pieces = module_tensors(module)
        matrices = {tensor.name for unit in discover(tensors) for tensor in unit.tensors}
        widest = self._narrowest(piece for name in matrices for piece in self.pieces[name])
        self.tensors = tuple(replace(tensor, stored=widest if tensor.name in matrices else self._type_of(tensor)) for tensor in tensors)
        self.fingerprint = fingerprint(self.tensors, self.stored)

    @property
    def context_length(self) -> int:
        """See `Source.context_length`."""
        return context_length_of(self._config)

    @property
    def n_experts_used(self) -> int:
        """See `Source.n_experts_used`."""
        return n_experts_used_of(self._config)

    def read(self, tensor: Tensor) -> Floats:
        """See `Source.read`."""
        pieces = [self.rows(piece) for piece in self.pieces[tensor.name]]
        rows = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        weights: Floats = rows.reshape(-1, tensor.shape[-1]).numpy()
        return weights

    def stored(self, tensor: Tensor) -> Bytes:
        """See `Source.stored`."""
        if len(tensor.shape) == 3:  # one at a time: a stack may be as large as all other tensors together
            return np.concatenate([self.stored_part(tensor, expert) for expert in range(tensor.shape[0])])
        return float_bytes(tensor.stored, torch.from_numpy(self.read(tensor)))

    def part(self, tensor: Tensor, expert: int) -> Floats:
        """See `Source.part`."""
        weights: Floats = self.rows(self.pieces[tensor.name][expert]).numpy()
        return weights

    def stored_part(self, tensor: Tensor, expert: int) -> Bytes:
        """See `Source.stored_part`."""
        return float_bytes(tensor.stored, self.rows(self.pieces[tensor.name][expert]))

    def _type_of(self, tensor: Tensor) -> str:
        return "F32" if tensor.kind == ROUTER else self._narrowest(self.pieces[tensor.name])

    def _narrowest(self, pieces: Iterable[ParameterSlice]) -> str:
        """Return the narrowest float type that is lossless for every weight of `pieces`."""
        exact = list(FLOAT_TYPES)
        for piece in pieces:
            weights = self.rows(piece)
            exact = [name for name in exact if name == "F32" or holds(name, weights)]
            if exact == ["F32"]:
                break
        return exact[0]


class ModuleView(View):
    """See the module."""

    def source(self, checkpoint: Checkpoint) -> ModuleSource:
        """See `View.source`."""
        return ModuleSource(checkpoint.name, checkpoint.skeleton, rows_of(checkpoint), checkpoint.settings)

    def headers(self, checkpoint: Checkpoint) -> Outline:
        """See `View.headers`."""
        widest = "F32" if not isinstance(checkpoint, FolderCheckpoint) or checkpoint.shards.dtypes & {"F32", "F64"} else "BF16"
        tensors, _ = module_tensors(checkpoint.skeleton)
        config = checkpoint.skeleton.config
        least, most = (
            Headers(
                checkpoint.name,
                str(config.model_type),
                (),
                tuple(replace(tensor, stored="F32" if tensor.kind == ROUTER else stored) for tensor in tensors),
                context_length=context_length_of(config),
                n_experts_used=n_experts_used_of(config),
            )
            for stored in ("BF16", widest)
        )
        return Outline(least, most, 0)

    def bound(self, checkpoint: Checkpoint, module: PreTrainedModel) -> Bound:  # noqa: ARG002
        """See `View.bound`."""
        tensors, pieces = module_tensors(module)
        return Bound({tensor.name: pieces[tensor.name] for tensor in tensors if len(tensor.shape) > 1})


MODULE_VIEW = ModuleView()


def rows_of(checkpoint: Checkpoint) -> Rows:
    """Return the reader of the rows of a checkpoint's parameters, as its module has them."""
    return checkpoint.shards.rows if isinstance(checkpoint, FolderCheckpoint) else GgufRows(checkpoint.source, checkpoint.skeleton).rows


def context_length_of(config: PreTrainedConfig) -> int:
    """Return the context length of a configuration in tokens, 0 where it names none."""
    settings = config.get_text_config().to_dict()
    return next((int(settings[key]) for key in ("max_position_embeddings", "n_positions", "max_seq_len") if settings.get(key)), 0)


def n_experts_used_of(config: PreTrainedConfig) -> int:
    """Return the number of routed experts that a token uses, 1 where the configuration names none."""
    settings = config.get_text_config().to_dict()
    keys = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k", "top_k_experts", "moe_topk")
    found: Any = next((settings[key] for key in keys if settings.get(key)), 1)
    return int(found[0] if isinstance(found, list) else found)
