"""Choices swapped into a module one after another: the same weights as writing each anew, and the original ones afterwards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Floats, Model, PackedTensors, choice_loader, load, swapping
from bitwright.spaces import Space
from tests.measuring import levels_of, space_of, uniform

MENU = ("BF16", "Q8_0", "Q4_0")


@pytest.fixture(scope="module", params=["llama_gqa", "tiny_mixtral", "llama_tied"])
def model(request: pytest.FixtureRequest) -> Model:
    return load(str(request.getfixturevalue(request.param)))


@pytest.fixture
def space(model: Model) -> Space:
    return space_of(model, MENU)


@pytest.fixture
def levels(model: Model, space: Space, tmp_path: Path) -> PackedTensors:
    packed = levels_of(model, tmp_path)
    for unit in space.units:
        for form in (form for form in space.formats if form.name in MENU):
            packed.packed(unit.tensors[0], form)
    return packed


def in_module(model: Model, name: str) -> Floats:
    return torch.cat([piece.to_engine(model.module.get_parameter(piece.parameter).detach()) for piece in model.pieces[name]]).numpy()


def test_the_module_has_the_weights_of_the_last_choice(model: Model, space: Space, levels: PackedTensors) -> None:
    expected = {(u.tensors[0].name, f): levels.weights(u.tensors[0], space.formats[f]) for u in space.units for f in np.flatnonzero(space.offered[0])}
    before = {name: weight.detach().clone() for name, weight in model.module.named_parameters()}
    rng = np.random.default_rng(0)
    offered = np.flatnonzero(space.offered[0])
    with swapping(model, expanded_bytes=1 << 30) as weights:
        put = choice_loader(weights, model, levels, space)
        for _ in range(4):
            choice = rng.choice(offered, len(space.units))
            put(choice)
            for unit, f in zip(space.units, choice, strict=True):
                assert np.array_equal(in_module(model, unit.tensors[0].name), expected[unit.tensors[0].name, int(f)]), unit.name
        weights.restore()
        assert all(torch.equal(weight, before[name]) for name, weight in model.module.named_parameters())
        put(uniform(space, "Q4_0"))
        unit = space.units[-1].tensors[0].name
        assert np.array_equal(in_module(model, unit), expected[unit, [form.name for form in space.formats].index("Q4_0")])
    assert all(torch.equal(weight, before[name]) for name, weight in model.module.named_parameters())


def test_weights_that_the_file_scales_come_back_to_the_bit(model: Model, space: Space, levels: PackedTensors) -> None:
    name = space.units[-1].tensors[0].name
    scaled = replace(model, pieces={**model.pieces, name: tuple(replace(piece, scale=0.7) for piece in model.pieces[name])})
    before = {key: weight.detach().clone() for key, weight in model.module.named_parameters()}
    with swapping(scaled) as weights:
        choice_loader(weights, scaled, levels, space)(uniform(space, "Q4_0"))
        expected = levels.weights(space.units[-1].tensors[0], next(form for form in space.formats if form.name == "Q4_0"))
        np.testing.assert_allclose(in_module(scaled, name), expected.reshape(-1, expected.shape[-1]), rtol=1e-6)
        weights.load({})
        assert all(torch.equal(weight, before[key]) for key, weight in model.module.named_parameters())


def test_only_what_differs_is_expanded(model: Model, space: Space, levels: PackedTensors, monkeypatch: pytest.MonkeyPatch) -> None:
    expanded: list[str] = []
    original = PackedTensors.weights
    monkeypatch.setattr(PackedTensors, "weights", lambda self, tensor, form: (expanded.append(tensor.name), original(self, tensor, form))[1])
    first, second = uniform(space, "Q4_0"), uniform(space, "Q4_0")
    second[1] = uniform(space, "Q8_0")[1]
    with swapping(model, expanded_bytes=1 << 30) as weights:
        put = choice_loader(weights, model, levels, space)
        put(first)
        n_first = len(expanded)
        put(second)
        put(first)  # kept in memory
    assert n_first == len(space.units)
    assert expanded[n_first:] == [space.units[1].tensors[0].name]


@pytest.mark.parametrize("expanded_bytes", [0, 1, 50_000])
def test_memory_is_bounded(model: Model, space: Space, levels: PackedTensors, expanded_bytes: int) -> None:
    with swapping(model, expanded_bytes=expanded_bytes) as weights:
        put = choice_loader(weights, model, levels, space)
        for name in ("Q4_0", "Q8_0", "Q4_0"):
            put(uniform(space, name))
            tensor = space.units[0].tensors[0]
            form = next(form for form in space.formats if form.name == name)
            assert np.array_equal(in_module(model, tensor.name), levels.weights(tensor, form))
