"""A mixture with its experts apart is the same model under other names."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model, applied, importance_apart, load, model_as_held
from bitwright.spaces import NATIVE, by_expert, discover, joined


@pytest.fixture(scope="module")
def whole(tiny_mixtral: Path) -> Model:
    return load(str(tiny_mixtral))


def test_every_expert_has_its_rows(whole: Model) -> None:
    apart = model_as_held(whole, NATIVE)
    stacks = [tensor for tensor in whole.tensors if len(tensor.shape) == 3]
    assert stacks
    for stack in stacks:
        weights, stored = whole.source.read(stack).reshape(stack.shape), whole.source.stored(stack)
        names = [stack.name.replace(".weight", f".{expert}.weight") for expert in range(stack.shape[0])]
        parts = [tensor for tensor in apart.tensors if tensor.name in names]
        assert [part.name for part in parts] == names
        assert {part.shape for part in parts} == {stack.shape[1:]}
        for expert, part in enumerate(parts):
            np.testing.assert_array_equal(apart.source.read(part), weights[expert])
            parameter = apart.module.get_parameter(apart.pieces[part.name][0].parameter)
            np.testing.assert_array_equal(apart.pieces[part.name][0].to_engine(parameter).numpy(), weights[expert])
        np.testing.assert_array_equal(np.concatenate([apart.source.stored(part) for part in parts]), stored)


def test_what_is_no_stack_stays(whole: Model) -> None:
    apart = model_as_held(whole, NATIVE)
    assert [t for t in apart.tensors if ".ffn_" not in t.name] == [t for t in whole.tensors if ".ffn_" not in t.name]
    assert sum(tensor.n_weights for tensor in apart.tensors) == sum(tensor.n_weights for tensor in whole.tensors)
    assert apart.source.fingerprint == whole.source.fingerprint
    dense = next(tensor for tensor in whole.tensors if tensor.name == "blk.0.attn_q.weight")
    np.testing.assert_array_equal(apart.source.read(dense), whole.source.read(dense))
    np.testing.assert_array_equal(apart.source.stored(dense), whole.source.stored(dense))


def test_one_expert_is_changed_alone(whole: Model) -> None:
    apart = model_as_held(whole, NATIVE)
    part = next(tensor for tensor in apart.tensors if ".ffn_down_exps.2." in tensor.name)
    piece = apart.pieces[part.name][0]
    before = apart.module.get_parameter(piece.parameter).detach().clone()
    with applied(apart, {part.name: lambda: np.zeros(part.shape, dtype=np.float32)}):
        changed = (apart.module.get_parameter(piece.parameter) != before).flatten(1).any(dim=1)
    assert torch.nonzero(changed).reshape(-1).tolist() == [2]


def test_the_matrices_of_an_expert_make_a_unit(whole: Model) -> None:
    units = joined(discover(model_as_held(whole, NATIVE).tensors), by_expert)
    experts = [unit for unit in units if unit.expert >= 0]
    n_layers, n_experts = whole.module.config.num_hidden_layers, whole.module.config.num_local_experts
    assert [(unit.layer, unit.expert) for unit in experts] == [(layer, i) for layer in range(n_layers) for i in range(n_experts)]
    assert all({tensor.name.split(".")[2] for tensor in unit.tensors} == {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"} for unit in experts)


def test_importance_of_experts() -> None:
    channels = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = importance_apart({"blk.0.ffn_up_exps.weight": channels, "blk.0.attn_q.weight": channels[:1]})
    assert sorted(found) == ["blk.0.attn_q.weight", "blk.0.ffn_up_exps.0.weight", "blk.0.ffn_up_exps.1.weight"]
    np.testing.assert_array_equal(found["blk.0.ffn_up_exps.1.weight"], [[3, 4, 5]])
