"""A model without an expert is the model that never had it."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from bitwright.compress import Model, PackedTensors, applied, choice_loader, integer_codec, load, planned_weights, rerouted, swapping, without
from bitwright.engines import NATIVE, model_as_held
from bitwright.engines.native.rerouted_router import ReroutedRouter
from bitwright.spaces import DROP, Space, by_expert, discover
from bitwright.spaces.tie import joined
from tests.compress import tiny_models as tiny
from tests.measuring import random_tokens, weights_of

IDS = torch.from_numpy(random_tokens(3, 12).ids)
MENU = ("INT2_G32", "INT4_G32", "DROP")


@pytest.fixture(scope="module", params=["tiny_mixtral", "tiny_qwen3_moe"])
def model(request: pytest.FixtureRequest) -> Model:
    return model_as_held(load(str(request.getfixturevalue(request.param))), NATIVE)


@pytest.fixture
def levels(model: Model, tmp_path: Path) -> PackedTensors:
    return PackedTensors(tmp_path, model.source, integer_codec(), {})


def space_of(model: Model) -> Space:
    return NATIVE.space(joined(discover(model.tensors), by_expert), menu=MENU, fixed_bytes=0, n_weights=1)


def logits(module: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return module(IDS, use_cache=False).logits.clone()


def rebuilt(model: Model, layer: int, gone: list[int]) -> PreTrainedModel:
    """A copy whose layer has as many experts less: their slices and their rows of the router are cut out."""
    other = deepcopy(model.module)
    block = other.model.layers[layer].mlp
    left = [expert for expert in range(4) if expert not in gone]
    block.gate.weight = torch.nn.Parameter(block.gate.weight[left])
    block.experts.gate_up_proj = torch.nn.Parameter(block.experts.gate_up_proj[left])
    block.experts.down_proj = torch.nn.Parameter(block.experts.down_proj[left])
    block.gate.num_experts = block.experts.num_experts = len(left)
    return other


@pytest.mark.parametrize("gone", [[2], [0, 3]])
def test_routers_choose_among_those_that_are_left(model: Model, gone: list[int]) -> None:
    expected = logits(rebuilt(model, 1, gone))
    with without(model, {(1, expert): -1 for expert in gone}):
        found = logits(model.module)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, logits(model.module), atol=1e-3)


def test_plans_and_choices_drop_alike_and_put_back(model: Model, levels: PackedTensors) -> None:
    space, before, original = space_of(model), weights_of(model), logits(model.module)
    choice = space.uniform(NATIVE.format("INT4_G32"))
    dropped = [u for u, unit in enumerate(space.units) if (unit.layer, unit.expert) in {(0, 1), (1, 0), (1, 3)}]
    for unit in space.units:
        for tensor in unit.tensors:
            levels.packed(tensor, NATIVE.format("INT4_G32"))
    full = choice.copy()
    choice[dropped] = space.formats.index(DROP)
    forms = {tensor: NATIVE.format(name) for tensor, name in space.names(choice).items()}
    with applied(model, planned_weights(model, levels, formats=forms)):
        at_once = logits(model.module)
    with swapping(model) as weights:
        put = choice_loader(weights, model, levels, space)
        put(choice)
        assert torch.equal(logits(model.module), at_once)
        put(full)
        whole = logits(model.module)
        weights.restore()
        assert torch.equal(logits(model.module), original)
        put(choice)
        assert torch.equal(logits(model.module), at_once)
    assert not torch.allclose(whole, at_once, atol=1e-3)
    assert torch.equal(logits(model.module), original)
    assert all(torch.equal(weight, before[name]) for name, weight in model.module.named_parameters())


def test_a_twin_takes_the_mass() -> None:
    made = torch.tensor([[1.0, 2.0, 0.5, -1.0]])
    found = rerouted(made, {1: 2}, n_at_once=2)
    np.testing.assert_allclose(found[0, 2], np.log(np.exp(2.0) + np.exp(0.5)), rtol=1e-6)
    assert found[0, 1] == -torch.inf
    assert rerouted(made, {1: 2}, n_at_once=1)[0, 2] == 2.0, "chosen where either was"
    assert found[0, [0, 3]].tolist() == [1.0, -1.0]
    chain = rerouted(made, {1: 2, 2: 3}, n_at_once=2)
    np.testing.assert_allclose(chain[0, 3], np.log(np.exp(2.0) + np.exp(0.5) + np.exp(-1.0)), rtol=1e-6)
    both = rerouted(made, {1: 2, 2: 1}, n_at_once=2)
    assert both[0, [0, 3]].tolist() == [1.0, -1.0], "of two twins that are both gone nobody is left to take over"


def test_gradients_pass_what_is_left() -> None:
    made = torch.tensor([[1.0, 2.0, 0.5, -1.0]], requires_grad=True)
    rerouted(made, {1: 2, 3: -1}, n_at_once=2).softmax(dim=-1)[0, 0].backward()
    slopes = made.grad
    assert slopes is not None
    assert torch.isfinite(slopes).all()
    assert slopes[0, 3] == 0, "nobody has its tokens"
    assert (slopes[0, 1:3] < 0).all(), "the twin has"


def test_what_is_dropped_has_no_bytes_and_no_weights(model: Model, levels: PackedTensors) -> None:
    tensor = next(tensor for tensor in model.tensors if "_exps.2." in tensor.name)
    assert len(levels.packed(tensor, DROP)) == len(levels.encode(tensor, DROP)) == 0
    assert levels.weights(tensor, DROP).shape == tensor.shape
    assert not levels.weights(tensor, DROP).any()
    assert levels.rows(tensor, DROP, start=1, stop=4).shape == (3, tensor.shape[1])
    assert levels.some_rows(tensor, DROP, np.array([5, 0])).shape == (2, tensor.shape[1])
    assert not list(levels.folder.glob("*DROP*"))


def test_routers_are_watched_from_the_first_drop_on(model: Model, levels: PackedTensors) -> None:
    space = space_of(model)
    with swapping(model) as weights:
        put = choice_loader(weights, model, levels, space)
        whole = space.uniform(NATIVE.format("INT4_G32"))
        put(whole)
        assert not torch.overrides._get_current_function_mode_stack()
        put(np.where([unit.expert == 0 for unit in space.units], space.formats.index(DROP), whole))
        assert torch.overrides._get_current_function_mode_stack()
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize(("family", "is_normalised"), [("qwen2-moe", False), ("mixtral", True)])
def test_the_weights_of_those_that_are_left_are_renormalised(family: str, is_normalised: bool) -> None:
    """Weights that are not normalized are probabilities over that of all experts left."""
    model_type, settings, _ = tiny.FAMILIES[family]
    router = tiny.module(model_type, settings, dtype=torch.float32).get_submodule("model.layers.0.mlp.gate").requires_grad_(False)
    x, left = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)), [0, 1, 3]
    probabilities = (x @ router.get_parameter("weight").T).softmax(dim=-1)
    _, weights, chosen = ReroutedRouter(router, {2: -1}, n_at_once=2)(x)
    expected = (probabilities / probabilities[:, left].sum(dim=-1, keepdim=True)).gather(-1, chosen)
    torch.testing.assert_close(weights, expected / expected.sum(dim=-1, keepdim=True) if is_normalised else expected)
    assert not (chosen == 2).any()
