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
from bitwright.compress.models.opening import open_skeleton
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
