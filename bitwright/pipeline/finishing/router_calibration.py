"""Step after quantization, named by `--step router-calibration`: QESC (EAC-MoE, ACL 2025).

It changes the weights of some unquantized tensors. It runs for every candidate before measuring, so the measured model is the one that ships. The
changed weights depend on calibration text and cannot be reproduced, so the run saves them and the plan names their file by path and SHA-256.

Router calibration goes layer by layer. Quantized attention and quantized earlier blocks change a router's input from x to x̂, and so the experts that
a token is routed to. In each layer the router W is replaced by the W' that reproduces, from x̂, the original's logits on x, over the experts that a
token is routed to:

    L = 1/K Σ_{i ∈ topK(Wx)} ((Wx)_i − (W'x̂)_i)²

The inputs x̂ of a layer come from the quantized earlier layers with their new routers. Differences from the paper: L is a sum of one least squares
problem per row of W', so each row is solved exactly instead of by gradient descent, with a ridge penalty towards the old row that weighs as much as
`ridge` tokens; and the experts keep their codes (a router does not read its own layer's experts, so only GPTQ's moments would differ). If experts
are dropped, the tokens' best among the remaining ones count too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor as Torch
from torch.nn import Module

from bitwright.compress import FLOAT_TYPES, DroppedWeights, Floats, Model, Weights, applied, rerouted, router_tensors
from bitwright.errors import ModelError, UserError
from bitwright.objectives import RouterCall, Tokens, decoder_blocks, hook_routers
from bitwright.pipeline.finishing.block_stream import Stream, input_stream
from bitwright.progress import Progress
from bitwright.spaces import CalibratedRouters, expert_of
from bitwright.written_files import digest

RIDGE = 128.0  # tokens; from 1 to 512, only the third digit of the results changes (docs/experts.md)
CALIBRATION = "router-calibration"


@dataclass(frozen=True, eq=False)
class _Wanted:
    """Targets of one router: `logits` `(n_tokens, n_experts)`, and the mask of those that count, `counts` `(n_tokens, n_experts)` bool."""

    logits: Torch
    counts: Torch


def calibrated_routers(model: Model, weights: Weights, tokens: Tokens, *, ridge: float, progress: Progress) -> dict[str, Floats]:
    """Return the calibrated router `(n_experts, width)` of every layer, by its tensor name, for a model with `weights`; rounded to its stored dtype.

    Memory beyond the model is three times the tokens' hidden states, and one block.

    Raises:
        ModelError: the model has no routers.
    """
    routers, found = router_tensors(model), dict[str, Floats]()
    if not routers:
        raise ModelError("Router calibration needs routers; this model is not a mixture of experts: leave the step out.")
    layers = sorted({expert_of(name)[0] for name in model.pieces} - {-1})
    original = input_stream(model, tokens)
    with applied(model, _of_layer(weights, -1)):
        changed = input_stream(model, tokens)
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
    """Fit the rows `(n_experts, width)` that give `logits` `(n_tokens, n_experts)` from `x` `(n_tokens, width)` in least squares, over the entries
    where `counts` `(n_tokens, n_experts)` is true, with a ridge penalty towards `router` of weight `ridge` tokens times the mean square of `x`.
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
    """Return the dropped experts of a layer with their replacements."""
    return {matrix.expert[1]: matrix.replacement for matrix in weights.values() if isinstance(matrix, DroppedWeights)}


def _wanted(model: Model, block: Module, index: int, *, original: Stream, gone: Mapping[int, int]) -> _Wanted:
    """Return the logits of the original's router, advancing the original's stream through the block."""
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
    """Return the inputs `(n_tokens, width)` of a block's router, without advancing the stream."""
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


@dataclass(frozen=True)
class RouterCalibration:
    """Router calibration; see `calibrated_routers`. `ridge` is the weight of the penalty towards the old router, in tokens."""

    ridge: float = RIDGE
    name = CALIBRATION

    @property
    def words(self) -> str:
        """The step with its field, as `--step` takes it."""
        return f"{self.name}:ridge={self.ridge:g}"

    def __call__(self, model: Model, weights: Weights, tokens: Tokens, progress: Progress) -> dict[str, Floats]:
        """Return the changed tensors of a model with `weights`."""
        return calibrated_routers(model, weights, tokens, ridge=self.ridge, progress=progress)

    def planned(self, path: Path) -> CalibratedRouters:
        """Return the plan's record of the step, whose weights are in the file `path`."""
        return CalibratedRouters(ridge=self.ridge, path=str(path.absolute()), sha256=digest(path))


def calibration_named(words: str) -> RouterCalibration:
    """Parse router calibration with its optional field: `router-calibration:ridge=32`.

    Raises:
        UserError: there is no such field, or it is not above zero.
    """
    name, _, field = words.partition(":")
    key, _, value = field.partition("=")
    if field and key != "ridge":
        raise UserError(f"The step {name} may have a ridge, {CALIBRATION}:ridge=32; '{words}' is not that: correct its spelling.")
    try:
        ridge = float(value) if field else RIDGE
    except ValueError:
        ridge = 0.0
    if not 0 < ridge < float("inf"):
        raise UserError(f"The ridge of {CALIBRATION} is a number of tokens above 0; '{value}' is not: write {CALIBRATION}:ridge={RIDGE:g}.")
    return RouterCalibration(ridge)
