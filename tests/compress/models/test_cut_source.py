"""A model with its experts or its channels apart is the same model under other names."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import FLOAT_TYPES, Model, applied, cut_importance, load
from bitwright.engines import NATIVE, NATIVE_CHANNELS, as_held, model_as_held
from bitwright.errors import ModelError
from bitwright.spaces import Tensor, by_channels, by_expert, channel_ranges, discover, part_of
from bitwright.spaces.tie import joined
from tests.compress.made_sources import MadeSource
from tests.sentences import sentence


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
    tensors = (Tensor("blk.0.ffn_up_exps.weight", (2, 5, 3), "F32"), Tensor("blk.0.attn_q.weight", (5, 3), "F32"))
    found = cut_importance({"blk.0.ffn_up_exps.weight": channels, "blk.0.attn_q.weight": channels[:1]}, tensors, NATIVE.cut)
    assert sorted(found) == ["blk.0.attn_q.weight", "blk.0.ffn_up_exps.0.weight", "blk.0.ffn_up_exps.1.weight"]
    np.testing.assert_array_equal(found["blk.0.ffn_up_exps.1.weight"], [[3, 4, 5]])


def test_importance_of_channels() -> None:
    down, up = np.arange(128, dtype=np.float32)[None], np.arange(6, dtype=np.float32)[None]
    tensors = (Tensor("blk.0.ffn_down.weight", (6, 128), "F32"), Tensor("blk.0.ffn_up.weight", (128, 6), "F32"))
    found = cut_importance({"blk.0.ffn_down.weight": down, "blk.0.ffn_up.weight": up}, tensors, NATIVE_CHANNELS.cut)
    np.testing.assert_array_equal(found["blk.0.ffn_down.part.2.weight"], down[:, 64:96])
    np.testing.assert_array_equal(found["blk.0.ffn_up.part.2.weight"], up)


@pytest.fixture(scope="module", params=["tiny_mixtral", "llama_96"])
def cut(request: pytest.FixtureRequest) -> tuple[Model, Model]:
    """A model as its experts, and cut into channels."""
    loaded = load(str(request.getfixturevalue(request.param)))
    return model_as_held(loaded, NATIVE), model_as_held(loaded, NATIVE_CHANNELS)


def test_channels_are_rows_of_gate_and_up_and_columns_of_down(cut: tuple[Model, Model]) -> None:
    experts, channels = cut
    parts = {tensor.name: tensor for tensor in channels.tensors}
    n_cut = 0
    for tensor in experts.tensors:
        stem = tensor.name.removesuffix(".weight")
        if f"{stem}.part.0.weight" not in parts:
            assert parts.pop(tensor.name) == tensor
            continue
        n_cut += 1
        across = "ffn_down" in tensor.name
        weights = experts.source.read(tensor)
        for i, (start, stop) in enumerate(channel_ranges(tensor.shape[1 if across else 0])):
            part = parts.pop(f"{stem}.part.{i}.weight")
            expected = weights[:, start:stop] if across else weights[start:stop]
            assert part.shape == expected.shape
            np.testing.assert_array_equal(channels.source.read(part), expected)
            stored = torch.from_numpy(channels.source.stored(part)).view(FLOAT_TYPES[part.stored]).float().reshape(part.shape)
            np.testing.assert_array_equal(stored.numpy(), expected)
            (piece,) = channels.pieces[part.name]
            parameter = channels.module.get_parameter(piece.parameter)
            np.testing.assert_array_equal(piece.to_engine(parameter).numpy(), expected)
    assert n_cut
    assert not parts


def test_columns_are_changed_alone(cut: tuple[Model, Model]) -> None:
    _, channels = cut
    part = next(tensor for tensor in channels.tensors if "ffn_down" in tensor.name and part_of(tensor.name) == 1)
    (piece,) = channels.pieces[part.name]
    before = piece.matrix(channels.module.get_parameter(piece.parameter)).detach().clone()
    with applied(channels, {part.name: lambda: np.zeros(part.shape, dtype=np.float32)}):
        after = piece.matrix(channels.module.get_parameter(piece.parameter)).detach().clone()
    start, stop = channel_ranges(before.shape[1])[1]
    assert torch.nonzero((after != before).any(dim=0)).reshape(-1).tolist() == list(range(start, stop))


def test_the_same_channels_of_all_three_matrices_make_a_unit(cut: tuple[Model, Model]) -> None:
    _, channels = cut
    units = [unit for unit in joined(discover(channels.tensors), by_channels) if "part" in unit.name]
    assert units
    assert all({tensor.name.split(".")[2].split("_")[1] for tensor in unit.tensors} == {"gate", "up", "down"} for unit in units)
    assert all(len({part_of(tensor.name) for tensor in unit.tensors}) == 1 for unit in units)


def test_biased_feed_forward_parts_are_refused() -> None:
    source = MadeSource([Tensor("blk.0.ffn_up.weight", (64, 8), "F32"), Tensor("blk.0.ffn_up.bias", (64,), "F32")])
    assert as_held(source, NATIVE).tensors == source.tensors
    with pytest.raises(ModelError) as caught:
        as_held(source, NATIVE_CHANNELS)
    sentence(caught.value, "biases", "--target native")
