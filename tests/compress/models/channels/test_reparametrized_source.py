"""Channels moved between matrices: the model computes the same, and each map has its inverse."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import (
    ChannelMap,
    ChannelScales,
    Floats,
    HeadRotations,
    Junction,
    Model,
    Reparametrization,
    ReparametrizedSource,
    Source,
    channel_order,
    junctions,
    load,
    matrix_shape,
    open_source,
    reparametrization,
)
from bitwright.compress.models.row_source import RowSource
from bitwright.errors import ModelError, PlanError
from bitwright.objectives import collect_moments, next_token_log_probabilities
from tests.compress import tiny_models as tiny
from tests.measuring import random_tokens
from tests.model_fixtures import saved
from tests.sentences import sentence

_SHAPE = {"num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
_FAMILIES = {
    "llama": ("llama", {"attention_bias": True, "mlp_bias": True, **_SHAPE}),
    "qwen2": ("qwen2", {name: value for name, value in _SHAPE.items() if name != "head_dim"}),
    "qwen3": ("qwen3", _SHAPE),
}
_CONTEXTS = [random_tokens(1, n, seed=n).ids[0] for n in (2, 9, 30)]


@pytest.fixture(scope="module", params=_FAMILIES)
def original(request: pytest.FixtureRequest, model_folders: Path) -> Model:
    """Two blocks with four query heads for each head of values, and biases where the family has any, none of which is 0."""
    folder = model_folders / f"channels-{request.param}"
    return load(str(folder if folder.exists() else saved(folder, *_FAMILIES[request.param])))


def any_map(at: Junction, kind: str, seed: int) -> ChannelMap:
    rng = np.random.default_rng(seed)
    if kind == "order":
        return channel_order(rng.permutation(at.n_channels))
    if kind == "rotation":
        heads = [np.linalg.qr(rng.normal(size=(at.width, at.width)))[0] for _ in range(at.n_channels // at.width)]
        return HeadRotations(np.concatenate(heads).astype(np.float32))
    return ChannelScales(np.exp(rng.normal(size=(1, at.n_channels))).astype(np.float32))


def step(model: Model, kind: str, of: str, seed: int = 0) -> Reparametrization:
    places = junctions(model.source)
    return Reparametrization(tuple((at, any_map(at, kind, seed + i)) for i, at in enumerate(places) if at.kind.startswith(of)))


def all_steps(model: Model) -> list[Reparametrization]:
    return [step(model, "order", "up-down"), step(model, "scale", ""), step(model, "rotation", "value-output"), step(model, "scale", "", seed=9)]


@pytest.mark.parametrize("steps", ["order", "scale", "rotation", "all"])
def test_the_model_computes_the_same(steps: str, original: Model) -> None:
    made = {"order": [step(original, "order", "up-down")], "scale": [step(original, "scale", "")]}
    made |= {"rotation": [step(original, "rotation", "value-output")], "all": all_steps(original)}
    source = ReparametrizedSource(original.source, made[steps])
    changed = [tensor.name for tensor in source.tensors if not np.array_equal(source.read(tensor), original.source.read(tensor))]
    assert changed == [tensor.name for tensor in source.tensors if source.changes(tensor.name)] != []
    before, after = (next_token_log_probabilities(model, _CONTEXTS) for model in (original, with_weights_of(source, original)))
    assert np.abs(after - before).max() < 1e-5 * np.abs(before).max()


def with_weights_of(source: Source, model: Model) -> Model:
    """Return a copy of the model with all weights of a source, norms and biases included."""
    assert isinstance(model.source, RowSource)
    module = deepcopy(model.module)
    with torch.no_grad():
        for tensor in source.tensors:
            (piece,), weights = model.source.pieces[tensor.name], torch.from_numpy(source.read(tensor))
            piece.from_engine(module.get_parameter(piece.parameter), weights[0] if len(tensor.shape) == 1 else weights)
    return replace(model, module=module)


def test_weights_of_moved_channels_are_restored(original: Model) -> None:
    source = ReparametrizedSource(original.source, all_steps(original))
    for tensor in source.tensors:
        weights = original.source.read(tensor)
        np.testing.assert_allclose(source.restored(tensor.name, source.read(tensor)), weights, atol=1e-5 * np.abs(weights).max())


def test_moments_and_importance_are_those_of_the_moved_model(original: Model) -> None:
    source = ReparametrizedSource(original.source, [step(original, "order", "up-down"), step(original, "scale", "")])
    names = [name for at in junctions(original.source) for name in at.readers]
    before, after = (moments(model, names) for model in (original, with_weights_of(source, original)))
    importance = source.squares({name: before[name][:, range(len(before[name][0])), range(len(before[name][0]))] for name in names})
    for name in names:
        np.testing.assert_allclose(source.moments(name, before[name]), after[name], rtol=1e-3, atol=1e-4 * np.abs(after[name]).max())
        np.testing.assert_allclose(importance[name][0], after[name][0].diagonal(), rtol=1e-3)


def moments(model: Model, names: list[str]) -> dict[str, Floats]:
    with torch.no_grad(), collect_moments(model, names, weigh=False) as found:
        model.module(torch.from_numpy(_CONTEXTS[-1][None]))
    return found


def test_maps_are_read_as_they_were_kept(original: Model) -> None:
    for made in all_steps(original):
        read = reparametrization(made.matrices(), junctions(original.source))
        for tensor in original.tensors:
            weights = np.random.default_rng(1).normal(size=matrix_shape(tensor)).astype(np.float32)
            np.testing.assert_array_equal(read.forward(tensor.name, weights), made.forward(tensor.name, weights))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("blk.9.up-down scale", np.ones((1, 96))),
        ("blk.0.up-down scale", np.ones((1, 95))),
        ("blk.0.up-down scale", np.zeros((1, 96))),
        ("blk.0.up-down scale", np.full((1, 96), np.nan)),
        ("blk.0.up-down order", np.zeros((1, 96))),
        ("blk.0.value-output order", np.arange(32)[None]),
        ("blk.0.value-output rotation", np.ones((32, 16))),
        ("blk.0.value-output turn", np.ones((32, 16))),
    ],
)
def test_maps_that_do_not_fit_are_refused(name: str, values: Floats, original: Model) -> None:
    with pytest.raises(PlanError) as caught:
        reparametrization({name: values.astype(np.float32)}, junctions(original.source))
    sentence(caught.value, "make the plan again")


def test_models_of_other_parts_are_refused(tiny_mixtral: Path, tmp_path: Path) -> None:
    gemma = saved(tmp_path / "gemma", *tiny.FAMILIES["gemma"][:2])
    for folder, words in ((gemma, "gemma"), (tiny_mixtral, "ffn_gate.weight")):
        with pytest.raises(ModelError) as caught:
            junctions(open_source(str(folder)))
        sentence(caught.value, words, "leave the step out")


def test_quantized_sources_are_refused(gguf_quantized: Path) -> None:
    with pytest.raises(ModelError) as caught:
        junctions(open_source(str(gguf_quantized)))
    sentence(caught.value, "stored as floats", "leave the step out")
