"""REAP's saliency of experts, from its definition."""

from pathlib import Path

import numpy as np
import torch

from bitwright.compress import Model, PackedTensors, integer_codec
from bitwright.engines import NATIVE
from bitwright.objectives import hook_routers
from bitwright.predictors import expert_saliencies
from bitwright.spaces import discover
from tests.measuring import random_tokens
from tests.predictors.subjects import opened

TOKENS = random_tokens(6, 8)


def expected(model: Model, layer: int) -> list[float]:
    """Means over the tokens of each expert, expert by expert from what the layer's experts are given."""
    block, given = model.module.model.layers[layer].mlp, []
    handle = block.experts.register_forward_pre_hook(lambda module, args: given.append(args))
    with hook_routers(model, lambda each: None), torch.no_grad():
        for ids in TOKENS.batches(1):
            model.module(torch.from_numpy(ids), use_cache=False)
    handle.remove()
    found = []
    for expert in range(block.experts.num_experts):
        weighted = []
        for hidden, index, weights in given:
            gate, up = (hidden @ block.experts.gate_up_proj[expert].T).chunk(2, dim=-1)
            output = (torch.nn.functional.silu(gate) * up) @ block.experts.down_proj[expert].T
            share = torch.where(index == expert, weights, 0.0).sum(dim=-1)
            weighted += [(s * y.norm()).item() for s, y in zip(share, output, strict=True) if s > 0]
        found.append(float(np.mean(weighted)) if weighted else 0.0)
    return found


def test_the_saliency_is_the_mean_of_the_weighted_norms(mixtral: Model, tmp_path: Path) -> None:
    space = NATIVE.space(discover(mixtral.tensors), menu=("F32",), fixed_bytes=0, n_weights=1)
    levels = PackedTensors(tmp_path / "levels", mixtral.source, integer_codec(), {})
    with opened(mixtral, levels, space=space, tokens=TOKENS, store=tmp_path / "a") as subject:
        found = expert_saliencies(subject)
    assert found.shape == (2, 4)
    np.testing.assert_allclose(found, [expected(mixtral, layer) for layer in (0, 1)], rtol=1e-4)
