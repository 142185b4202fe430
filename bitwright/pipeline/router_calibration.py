"""Routers that choose as before although what they read has changed: QESC (EAC-MoE, ACL 2025), layer by layer.

Quantized attention and quantized blocks before it change what a router is given from x to x̂, and so which experts a token is sent to. In each layer
the router W becomes the one that gives from x̂ the logits which the original's gave from x, over the experts that a token is sent to:

    L = 1/K Σ_{i ∈ topK(Wx)} ((Wx)_i − (W'x̂)_i)²

Every layer sees what the quantized layers with their new routers before it give. What differs from the paper: L is the sum of a least squares problem
for each row of W', so each row is solved exactly instead of by gradient descent, held to the old row as if `ridge` tokens more asked for it; and the
experts keep the codes they have (a router reads nothing of its own layer's experts, so only the moments of GPTQ would be others). Where experts are
dropped, those of the tokens' best that are left count too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor as Torch
from torch.nn import Module

from bitwright.compress import FLOAT_TYPES, DroppedWeights, Floats, Model, Weights, applied, rerouted, router_tensors
from bitwright.errors import ModelError
from bitwright.objectives import RouterCall, Tokens, hook_routers
from bitwright.pipeline.block_stream import Stream, entering
from bitwright.predictors import decoder_blocks
from bitwright.progress import Progress
from bitwright.spaces import expert_of


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What one router is to give: `logits` `(n_tokens, n_experts)`, and which of them count, `counts` `(n_tokens, n_experts)` bool."""

    logits: Torch
    counts: Torch


def calibrated_routers(model: Model, weights: Weights, tokens: Tokens, *, ridge: float, progress: Progress) -> dict[str, Floats]:
    """The router of every layer `(n_experts, width)`, by the engine's name, for a model that gets `weights`; rounded to the type it is stored in.

    Memory beside the model is that of the tokens' hidden states, three times, and of one block.

    Raises:
        ModelError: the model has no routers.
    """
    routers, found = router_tensors(model), dict[str, Floats]()
    if not routers:
        raise ModelError("Routers can be calibrated only where there are some; this model is no mixture of experts: leave the step out.")
    layers = sorted({expert_of(name)[0] for name in model.pieces} - {-1})
    original = entering(model, tokens)
    with applied(model, _of_layer(weights, -1)):
        changed = entering(model, tokens)
    with progress.stage("Calibrating routers", len(layers)) as advance:
        for i, (layer, block) in enumerate(zip(layers, decoder_blocks(model), strict=True)):
            here = _of_layer(weights, layer)
            wanted = _wanted(model, block, i, original=original, gone=_gone(here))
            with applied(model, here):
                if layer in routers:
                    found[routers[layer]] = _fitted(model, routers[layer], _read(model, block, i, changed), wanted, ridge=ridge)
                with applied(model, {name: lambda name=name: found[name] for name in found if expert_of(name)[0] == layer}):  # type: ignore[misc]
                    changed.advance(block, i)
            advance(1)
    return found


def fitted_router(router: Torch, x: Torch, logits: Torch, counts: Torch, *, ridge: float) -> Torch:
    """Rows `(n_experts, width)` that give `logits` `(n_tokens, n_experts)` from `x` `(n_tokens, width)` where `counts`, of that shape too, says so,
    in least squares, with `ridge` tokens of the mean square of `x` in favour of `router`.
    """
    x, router, logits = x.double(), router.double(), logits.double()
    missing = logits - x @ router.T
    weight = ridge * x.square().mean() * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    rows = []
    for expert, row in enumerate(router):
        seen = x[counts[:, expert]]
        change = torch.linalg.solve(seen.T @ seen + weight, seen.T @ missing[counts[:, expert], expert])
        rows.append(row + change)
    return torch.stack(rows)


def _of_layer(weights: Weights, layer: int) -> Weights:
    return {name: matrix for name, matrix in weights.items() if expert_of(name)[0] == layer}


def _gone(weights: Weights) -> dict[int, int]:
    """The experts of a layer that are dropped, with their heirs."""
    return {matrix.expert[1]: matrix.replacement for matrix in weights.values() if isinstance(matrix, DroppedWeights)}


def _wanted(model: Model, block: Module, index: int, *, original: Stream, gone: Mapping[int, int]) -> _Wanted:
    """What the original's router gives, while the original's text goes through the block."""
    logits: list[Torch] = []
    counts: list[Torch] = []

    def note(routed: RouterCall) -> None:
        n_at_once = routed.chosen.shape[-1]
        left = [rerouted(routed.logits, gone, n_at_once=n_at_once).topk(n_at_once, dim=-1).indices] if gone else []
        logits.append(routed.logits)
        counts.append(torch.zeros_like(routed.logits, dtype=torch.bool).scatter(-1, torch.cat([routed.chosen, *left], dim=-1), value=True))

    with hook_routers(model, note):
        original.advance(block, index)
    return _Wanted(torch.cat(logits), torch.cat(counts)) if logits else _Wanted(torch.empty(0), torch.empty(0))


def _read(model: Model, block: Module, index: int, stream: Stream) -> Torch:
    """What the router of a block is given `(n_tokens, width)`; the stream stays before the block."""
    x: list[Torch] = []
    with hook_routers(model, lambda routed: x.append(routed.x)):
        for _ in stream.outputs(block, index):
            pass
    return torch.cat(x)


def _fitted(model: Model, name: str, x: Torch, wanted: _Wanted, *, ridge: float) -> Floats:
    router = model.module.get_parameter(model.pieces[name][0].parameter).detach()
    stored = next(tensor.stored for tensor in model.tensors if tensor.name == name)
    found: Floats = fitted_router(router, x, wanted.logits, wanted.counts, ridge=ridge).to(FLOAT_TYPES[stored]).float().cpu().numpy()
    return np.ascontiguousarray(found)
