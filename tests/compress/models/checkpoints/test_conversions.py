"""Weights of folders as transformers saves and loads them, under names and in layouts that differ from the module's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitwright.compress.models.checkpoints.checkpoint import Shards
from bitwright.compress.models.checkpoints.conversions import Outgoing
from bitwright.compress.models.checkpoints.quantized.quantization import quantization_of_model
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.modules.module_tensors import module_tensors
from bitwright.compress.models.opening import made, open_skeleton
from tests.compress.models.modules.test_module_tensors import FAMILIES


def saved(family: str, folder: Path) -> tuple[Any, Any]:
    config = AutoConfig.for_model(family, **FAMILIES[family])
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_()
    module.save_pretrained(folder)
    return open_skeleton(config), module


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_read_as_transformers_has_it(family: str, tmp_path: Path) -> None:
    skeleton, module = saved(family, tmp_path)
    shards, weights = Shards(tmp_path, quantization_of_model({}, tmp_path), skeleton), weights_of(module)
    for name, weight in weights.items():
        assert torch.equal(shards.parameter(name), weight)
    tensors, pieces = module_tensors(skeleton, apart=False)
    for tensor in tensors:
        for piece in pieces[tensor.name]:
            expected = piece.to_engine(weights[piece.parameter].detach())
            assert torch.equal(shards.rows(piece).reshape(expected.shape), expected)


def test_the_names_are_those_that_are_saved(tmp_path: Path) -> None:
    skeleton, _ = saved("mixtral", tmp_path)
    outgoing = Outgoing(skeleton)
    up, down = outgoing.experts("model.layers.0.mlp.experts.gate_up_proj"), outgoing.experts("model.layers.0.mlp.experts.down_proj")
    assert [outgoing.of_expert(pattern, 3) for pattern in (*up, *down)] == [
        f"model.layers.0.block_sparse_moe.experts.3.{leaf}.weight" for leaf in ("w1", "w3", "w2")
    ]
    assert outgoing.whole("model.layers.0.mlp.gate.weight") == "model.layers.0.block_sparse_moe.gate.weight"
    assert outgoing.is_own("model.layers.0.self_attn.q_proj.weight")


def test_stacks_that_are_stored_whole_and_fused_are_read(tmp_path: Path) -> None:
    text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16, "share_expert_dim": 16, "head_dim": 16}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "n_routed_experts": 4, "num_experts_per_tok": 2}
    text |= {"num_hidden_layers": 1, "mlp_layer_types": ["sparse"], "layer_types": ["full_attention"]}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = AutoConfig.for_model("step3p7", text_config=text, vision_config=vision)
    module = made(config, dtype=torch.float32)
    module.save_pretrained(tmp_path)
    skeleton = open_skeleton(config)
    shards, name = Shards(tmp_path, quantization_of_model({}, tmp_path), skeleton), "model.language_model.layers.0.mlp.experts.gate_up_proj"
    assert torch.equal(shards.parameter(name), module.get_parameter(name))
    assert not Outgoing(skeleton).experts(name)  # it has no name for each expert
