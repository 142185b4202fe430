"""Tensors of a transformers module: one for each parameter, under the module's own name.

A matrix is `model.layers.3.self_attn.q_proj.weight`. Experts that are saved one by one and stacked in the module, gate on up, are two stacks here,
`…mlp.experts.gate_proj` and `…mlp.experts.up_proj`; any other stack is one. What the module multiplies by from the right is transposed. What is not a
matrix or a stack is a vector of all its weights.
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor as Torch
from transformers import PreTrainedModel

from bitwright.compress.models.checkpoints.conversions import Outgoing
from bitwright.compress.models.float_types import integer_type
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.modules.initialised_layers import initialised_layers
from bitwright.compress.models.modules.structure import ROUTER, STACKED, kinds_of, n_stacked, transposed
from bitwright.compress.models.modules.widened_scales import widened_layers
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import KEPT, Tensor

_FUSED, _HALVES = "gate_up_proj", ("gate_proj", "up_proj")
_GATED = (*_HALVES, "down_proj")
#: tensor → the slices of the parameters that it is made of
Pieces = Mapping[str, tuple[ParameterSlice, ...]]


def module_tensors(module: PreTrainedModel, *, apart: bool) -> tuple[tuple[Tensor, ...], Pieces]:
    """Return the tensors of a module, which may be on the meta device, and their slices of its parameters. Tables of integers alone have a format.

    With `apart`, matrices that are transposed or not saved one by one cannot be quantized: a loader of packed linear layers finds no layer for them.
    Nor can layers that are loaded wider than they compute. Those that are initialised while they are loaded are marked.
    """
    kinds, outgoing, turned = kinds_of(module), Outgoing(module), transposed(module)
    tensors, pieces = list[Tensor](), dict[str, tuple[ParameterSlice, ...]]()
    matrices = [name for name, kind in kinds.items() if kind not in (KEPT, ROUTER)] if apart else []
    unfit = widened_layers(module, matrices) if apart else frozenset[str]()
    initialised = initialised_layers(module, matrices) if apart else frozenset[str]()
    for name, weight in weights_of(module).items():
        n_parts = len(outgoing.experts(name))
        kind = kinds[name]
        is_found = n_parts > 0 if n_stacked(weight, kind) else outgoing.is_own(name) and name not in unfit
        if apart and kind not in (KEPT, ROUTER) and ((name in turned and not outgoing.is_patched(name)) or not is_found):
            kind = KEPT
        for tensor, of_tensor in _tensors_of(name, weight, kind, n_parts=n_parts, is_turned=name in turned):
            tensors.append(replace(tensor, initialised=name in initialised and kind != KEPT))
            pieces[tensor.name] = of_tensor
    return tuple(_with_gated_role(tensor, pieces) for tensor in tensors), pieces


def _tensors_of(name: str, weight: Torch, kind: str, *, n_parts: int, is_turned: bool) -> list[tuple[Tensor, tuple[ParameterSlice, ...]]]:
    """List the tensors in a parameter with their slices; `n_parts` is the number of matrices of an expert that are saved apart."""
    if kind == KEPT or weight.dim() not in (2, 3):
        n_rows = weight.shape[0] if weight.dim() else 1
        shape = tuple(weight.shape) if weight.dim() == 2 else (weight.numel(),)
        return [(Tensor(name, shape, integer_type(weight.dtype), kind), (ParameterSlice(name, -1, range(n_rows)),))]
    n_outputs, n_inputs = weight.shape[:-3:-1] if is_turned else weight.shape[-2:]
    n_experts = n_stacked(weight, kind)
    if not n_experts:
        return [(Tensor(name, (n_outputs, n_inputs), "", kind), (ParameterSlice(name, -1, range(n_outputs), transposed=is_turned),))]
    names = _parts(name, n_parts)
    n_rows = n_outputs // len(names)
    found = []
    for i, part in enumerate(names):
        rows = range(i * n_rows, (i + 1) * n_rows)
        of_part = tuple(ParameterSlice(name, expert, rows, transposed=is_turned) for expert in range(n_experts))
        found.append((Tensor(part, (n_experts, n_rows, n_inputs), "", kind), of_part))
    return found


def _with_gated_role(tensor: Tensor, pieces: Pieces) -> Tensor:
    """Return a stack with its role in a gated feed-forward part where gate and up are stacks of their own."""
    owner, _, leaf = tensor.name.rpartition(".")
    if not tensor.kind.endswith(STACKED) or leaf not in _GATED or not all(f"{owner}.{other}" in pieces for other in _GATED):
        return tensor
    return replace(tensor, kind=f"ffn_{leaf.removesuffix('_proj')}{STACKED}")


def _parts(stack: str, n_parts: int) -> tuple[str, ...]:
    owner, _, leaf = stack.rpartition(".")
    return tuple(f"{owner}.{half}" for half in _HALVES) if n_parts == 2 and leaf == _FUSED else (stack,)
