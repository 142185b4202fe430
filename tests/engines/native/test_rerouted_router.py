"""A router of transformers without some experts."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitwright.engines.native.rerouted_router import ReroutedRouter, router_path
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


def longcat() -> torch.nn.Module:
    shape = {"vocab_size": 96, "hidden_size": 64, "ffn_hidden_size": 48, "num_layers": 1, "num_attention_heads": 2, "expert_ffn_hidden_size": 16}
    latent = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "head_dim": 16}
    config = AutoConfig.for_model("longcat_flash", **shape, **latent, n_routed_experts=4, zero_expert_num=2, moe_topk=2)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def test_the_router_is_the_module_around_a_layer_that_is_not_called() -> None:
    mixtral = tiny.module(*tiny.FAMILIES["mixtral"][:2], dtype=torch.float32)
    assert router_path(mixtral, "model.layers.0.mlp.gate.weight") == "model.layers.0.mlp.gate"
    path = router_path(longcat(), "model.layers.0.mlp.router.classifier.weight")
    assert path == "model.layers.0.mlp.router"
    router = longcat().get_submodule(path)
    without = ReroutedRouter(router, {1: 3, 2: -1}, n_at_once=2)
    assert [name for name, _ in without.named_parameters()] == ["classifier.weight"]
    chosen = without(torch.randn(50, 64, generator=torch.Generator().manual_seed(0)))[2]
    assert not torch.isin(chosen, torch.tensor([1, 2])).any()
