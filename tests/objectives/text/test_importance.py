from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bitwright.compress import Model
from bitwright.objectives import Tokens, collect_importance
from bitwright.progress import Silent
from tests.measuring import random_tokens

TOKENS = random_tokens(10, 9)


def forward(model: Model, tokens: Tokens) -> None:
    with torch.inference_mode():
        model.module(torch.from_numpy(tokens.ids), use_cache=False)


def test_a_dense_model_s_importance_is_what_hooks_on_its_layers_see(dense: Model) -> None:
    inputs: dict[str, np.ndarray] = {}

    def keep(parameter: str) -> Any:
        return lambda _, args, __: inputs.update({parameter: args[0].double().reshape(-1, args[0].shape[-1]).numpy()})

    layers = {f"{name}.weight": layer for name, layer in dense.module.named_modules() if isinstance(layer, nn.Linear)}
    hooks = [layer.register_forward_hook(keep(parameter)) for parameter, layer in layers.items()]
    forward(dense, TOKENS)
    for hook in hooks:
        hook.remove()
    found = collect_importance(dense, TOKENS, progress=Silent())
    assert sorted(found) == sorted(set(dense.pieces) - {"token_embd.weight"})
    for name, means in found.items():
        expected = (inputs[dense.pieces[name][0].parameter] ** 2).mean(axis=0, keepdims=True)
        assert means.dtype == np.float32
        np.testing.assert_allclose(means, expected, rtol=1e-4)


def test_a_tied_matrix_has_the_importance_of_the_output_head(tied: Model) -> None:
    seen: list[torch.Tensor] = []
    hook = tied.module.lm_head.register_forward_hook(lambda _, args, __: seen.append(args[0].double().reshape(-1, 64)))
    forward(tied, TOKENS)
    hook.remove()
    found = collect_importance(tied, TOKENS, progress=Silent())["token_embd.weight"]
    np.testing.assert_allclose(found, seen[0].square().mean(dim=0, keepdim=True).numpy(), rtol=1e-4)


def experts_directly(module: nn.Module, hidden: torch.Tensor, gate: Any) -> dict[str, list[torch.Tensor]]:
    """Inputs of both kinds of matrices of each expert, from the definition of a mixture of experts."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    chosen = (flat @ gate.weight.T).topk(2, dim=-1).indices  # (n_tokens, 2)
    seen: dict[str, list[torch.Tensor]] = {"up": [], "down": []}
    for expert in range(4):
        x = flat[(chosen == expert).any(dim=1)]
        gated, up = (x @ module.gate_up_proj[expert].T).chunk(2, dim=-1)
        seen["up"].append(x)
        seen["down"].append(functional.silu(gated) * up)
    return seen


def test_a_mixture_s_importance_is_expert_by_expert(mixtral: Model) -> None:
    blocks = [layer.mlp for layer in mixtral.module.model.layers]
    hidden: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda _, args, __: hidden.append(args[0])) for block in blocks]
    forward(mixtral, TOKENS)
    for hook in hooks:
        hook.remove()
    found = collect_importance(mixtral, TOKENS, progress=Silent())
    for i, block in enumerate(blocks):
        seen = experts_directly(block.experts, hidden[i], block.gate)
        for kind, inputs in (("gate", "up"), ("up", "up"), ("down", "down")):
            expected = torch.stack([x.double().square().mean(dim=0) for x in seen[inputs]])
            np.testing.assert_allclose(found[f"blk.{i}.ffn_{kind}_exps.weight"], expected.numpy(), rtol=1e-4)


def test_an_expert_that_no_token_reached_gets_the_mean_of_the_others(mixtral: Model) -> None:
    """A single token reaches two experts of four."""
    means = collect_importance(mixtral, random_tokens(1, 1), progress=Silent())["blk.0.ffn_down_exps.weight"]
    different = np.unique(means, axis=0)
    assert means.shape == (4, 96)
    assert len(different) == 3
    lone = [row for row in means if (means == row).all(axis=1).sum() == 1]
    shared = [row for row in means if (means == row).all(axis=1).sum() == 2]
    np.testing.assert_allclose(shared[0], np.mean(lone, axis=0), rtol=1e-6)
