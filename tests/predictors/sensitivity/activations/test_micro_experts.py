"""CAMERA's energies, from their definition."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Levels, Model, integer_codec
from bitwright.engines import NATIVE, model_as_held
from bitwright.objectives import hook_routers
from bitwright.predictors.sensitivity.activations.micro_experts import camera_scores, micro_expert_energies
from bitwright.spaces import by_expert, discover
from bitwright.spaces.tie import joined
from tests.measuring import random_tokens
from tests.predictors.subjects import opened

TOKENS = random_tokens(10, 8)


@pytest.fixture(scope="module")
def apart(mixtral: Model) -> Model:
    return model_as_held(mixtral, NATIVE)


def expected(model: Model, layer: int, alpha: float) -> np.ndarray:
    """Shares of energy `(n_experts, n_channels)` of a layer, expert by expert from what the layer's experts are given."""
    block = model.module.model.layers[layer].mlp
    given, routed = [], []
    handle = block.experts.register_forward_pre_hook(lambda module, args: given.append(args))
    with hook_routers(model, lambda each: routed.append(each) if each.layer == layer else None), torch.no_grad():
        for ids in TOKENS.batches(4):
            model.module(torch.from_numpy(ids), use_cache=False)
    handle.remove()
    rows = []
    for expert in range(block.experts.num_experts):
        values = []
        for (hidden, index, weights), _ in zip(given, routed, strict=True):
            gate, up = (hidden @ block.experts.gate_up_proj[expert].T).chunk(2, dim=-1)
            share = torch.where(index == expert, weights, 0.0).sum(dim=-1, keepdim=True)
            values.append((share * torch.nn.functional.silu(gate) * up).double())
        a = torch.cat(values)
        columns = block.experts.down_proj[expert].double().square().sum(dim=0)
        rows.append(columns * ((1 - alpha) * a.square().sum(dim=0) + alpha * a.abs().amax(dim=0) ** 2))
    energies = torch.stack(rows).detach().numpy()
    return energies / energies.sum()


@pytest.mark.parametrize("alpha", [0.9, 0.0])
def test_the_energy_of_a_channel_is_its_contribution(apart: Model, alpha: float, tmp_path: Path) -> None:
    units = joined(discover(apart.tensors), by_expert)
    space = NATIVE.space(units, menu=("F32", "INT4_G32"), fixed_bytes=0, n_weights=1)
    with opened(apart, Levels(tmp_path / "levels", apart.source, integer_codec(), {}), space=space, tokens=TOKENS, store=tmp_path / "a") as subject:
        found, scores = micro_expert_energies(subject, alpha), camera_scores(subject)
    for layer in (0, 1):
        mine = [u for u, unit in enumerate(space.units) if unit.layer == layer and unit.expert >= 0]
        np.testing.assert_allclose(found[mine], expected(apart, layer, alpha), rtol=1e-4, atol=1e-9)
    experts = np.array([unit.expert >= 0 for unit in space.units])
    assert not found[~experts].any()
    assert (scores[~experts] == scores.max()).all()
    assert scores[experts].sum() == pytest.approx(2)
