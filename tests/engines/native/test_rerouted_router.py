"""A router of transformers without some experts."""

import pytest
import torch

from bitwright.engines.native.rerouted_router import ReroutedRouter
from tests.compress import tiny_models as tiny


@pytest.mark.parametrize("family", ["mixtral", "qwen2-moe", "qwen3-moe"])
def test_what_is_gone_is_not_chosen_and_its_heir_takes_over(family: str) -> None:
    model_type, settings, _ = tiny.FAMILIES[family]
    router = tiny.module(model_type, settings, dtype=torch.float32).get_submodule("model.layers.0.mlp.gate")
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    logits = router(x)[0]
    without = ReroutedRouter(router, {1: 3, 2: -1}, n_at_once=2)
    found, _, chosen = without(x)
    assert [name for name, _ in without.named_parameters()] == ["weight"]
    assert not torch.isin(chosen, torch.tensor([1, 2])).any()
    assert torch.allclose(found[:, 3], torch.logaddexp(logits[:, 1], logits[:, 3]))
    assert torch.equal(found[:, 0], logits[:, 0])
    assert torch.equal(router(x)[0], logits)


def test_the_weight_is_the_stand_ins() -> None:
    model_type, settings, _ = tiny.FAMILIES["mixtral"]
    router = tiny.module(model_type, settings, dtype=torch.float32).get_submodule("model.layers.0.mlp.gate")
    without, x = ReroutedRouter(router, {1: -1}, n_at_once=2), torch.ones(1, 64)
    without.weight = torch.nn.Parameter(torch.zeros_like(without.weight))
    assert torch.equal(without(x)[0], torch.tensor([[0.0, -torch.inf, 0.0, 0.0]]))
