"""New routers against their definition: what each is given in the whole model with all of them in place, and the minimum of its loss there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import (
    FLOAT_TYPES,
    DroppedWeights,
    Model,
    PackedTensors,
    Weights,
    applied,
    integer_codec,
    load,
    planned_weights,
    router_tensors,
)
from bitwright.engines import NATIVE, model_as_held
from bitwright.errors import ModelError
from bitwright.objectives import RouterCall, hook_routers
from bitwright.pipeline.finishing.router_calibration import calibrated_routers, fitted_router
from bitwright.progress import Silent
from bitwright.spaces import DROP, discover
from tests.compress import tiny_models as tiny
from tests.measuring import random_tokens, weights_of
from tests.model_fixtures import saved
from tests.sentences import sentence

pytestmark = pytest.mark.slow

TOKENS = random_tokens(10, 12)  # batches of 8 and of 2
RIDGE = 4.0


def routed(model: Model, weights: Weights) -> list[RouterCall]:
    """Return what every router is given and gives, layer by layer, in one pass of the whole model."""
    found: list[RouterCall] = []
    with applied(model, weights), hook_routers(model, found.append), torch.no_grad():
        model.module(torch.from_numpy(TOKENS.ids), use_cache=False)
    return found


def planned(model: Model, folder: Path, gone: tuple[str, ...] = ()) -> Weights:
    """Return all weights in 3 bits, without those of the experts that are `gone`."""
    levels = PackedTensors(folder, model.source, integer_codec(), {})
    coarse = [NATIVE.format(name) for name in ("INT3_G32", "INT3_ROW", "BF16")]
    tensors = [tensor for unit in discover(model.tensors) for tensor in unit.tensors]
    formats = {t.name: DROP if t.name.startswith(gone) else next(form for form in coarse if form.fits(t.shape)) for t in tensors}
    for name, form in formats.items():
        levels.packed(next(tensor for tensor in model.tensors if tensor.name == name), form)
    return planned_weights(model, levels, formats=formats)


def in_place(weights: Weights, routers: dict[str, np.ndarray]) -> Weights:
    return {**weights, **{name: lambda name=name: routers[name] for name in routers}}  # type: ignore[misc]


@pytest.mark.parametrize(
    "which",
    ["tiny_mixtral", "tiny_qwen3_moe", "olmoe", "qwen2-moe", "deepseek-v2", "deepseek-v3", "trained_moe"],
)
def test_each_router_is_the_minimum_of_its_loss_behind_all_that_came_before(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = saved(tmp_path / which, *tiny.FAMILIES[which][:2]) if which in tiny.FAMILIES else request.getfixturevalue(which)
    model = model_as_held(load(str(folder)), NATIVE)
    before, weights = weights_of(model), planned(model, tmp_path)
    original = routed(model, {})
    found = calibrated_routers(model, weights, TOKENS, ridge=RIDGE, progress=Silent())
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(model).items()), "the model has its own weights again"
    assert sorted(found) == sorted(router_tensors(model).values())
    assert found
    changed = routed(model, in_place(weights, found))
    for layer, (name, old) in enumerate(zip(found, original, strict=True)):
        x, router = changed[layer].x.double(), torch.from_numpy(found[name]).double()
        was = model.module.get_parameter(model.pieces[name][0].parameter).double()
        weight = RIDGE * float(x.square().mean())
        for expert in range(len(router)):
            seen = (old.chosen == expert).any(dim=-1)
            missed = x[seen] @ router[expert] - old.logits[seen, expert]
            slope = x[seen].T @ missed + weight * (router[expert] - was[expert])
            assert slope.abs().max() < 1e-3 * max(1.0, float((x[seen].T @ old.logits[seen, expert].double()).abs().max()))


def test_routers_choose_more_like_the_original(trained_moe: Path, tmp_path: Path) -> None:
    model = model_as_held(load(str(trained_moe)), NATIVE)
    weights = planned(model, tmp_path)
    found = calibrated_routers(model, weights, TOKENS, ridge=RIDGE, progress=Silent())

    def losses(of: Weights) -> list[float]:
        """L of each layer, as published."""
        pairs = zip(routed(model, {}), routed(model, of), strict=True)
        return [float((new.logits - old.logits).gather(-1, old.chosen).square().mean()) for old, new in pairs]

    assert all(after < 0.8 * without for after, without in zip(losses(in_place(weights, found)), losses(weights), strict=True))


def test_what_changes_nothing_keeps_the_routers(tiny_mixtral: Path) -> None:
    model = model_as_held(load(str(tiny_mixtral)), NATIVE)
    for name, router in calibrated_routers(model, {}, TOKENS, ridge=RIDGE, progress=Silent()).items():
        np.testing.assert_allclose(router, model.module.get_parameter(model.pieces[name][0].parameter), atol=1e-6)


def test_where_experts_are_dropped_the_best_that_are_left_count_too(tiny_mixtral: Path, tmp_path: Path) -> None:
    model = model_as_held(load(str(tiny_mixtral)), NATIVE)
    gone = tuple(f"blk.0.ffn_{kind}_exps.1." for kind in ("gate", "up", "down"))
    weights, name = planned(model, tmp_path, gone), "blk.0.ffn_gate_inp.weight"
    assert sum(isinstance(matrix, DroppedWeights) for matrix in weights.values()) == 3
    found = calibrated_routers(model, weights, TOKENS, ridge=RIDGE, progress=Silent())[name]
    old, new = routed(model, {})[0], routed(model, weights)[0]
    left = old.logits.index_fill(-1, torch.tensor([1]), -torch.inf).topk(2, dim=-1).indices
    counts = torch.stack([((old.chosen == e) | (left == e)).any(dim=-1) for e in range(4)], dim=-1)
    assert counts.sum(dim=-1).max() == 3
    router = model.module.get_parameter(model.pieces[name][0].parameter)
    np.testing.assert_allclose(found, fitted_router(router, new.x, old.logits, counts, ridge=RIDGE).float(), atol=1e-5)
    changed = routed(model, in_place(weights, {name: found}))
    assert not (changed[0].chosen == 1).any()


def test_few_tokens_leave_a_row_near_the_old_one_and_none_leaves_it(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    router, x, logits = (torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((3, 8), (40, 8), (40, 3)))
    counts = torch.zeros((40, 3), dtype=torch.bool)
    counts[:, 0], counts[:2, 1] = True, True
    loose, held = (fitted_router(router, x, logits, counts, ridge=ridge) for ridge in (1e-9, 1e9))
    np.testing.assert_allclose(loose[0], torch.linalg.lstsq(x, logits[:, 0]).solution, atol=1e-6)
    np.testing.assert_allclose(x[:2] @ loose[1], logits[:2, 1], atol=1e-6)
    np.testing.assert_allclose(held, router, atol=1e-6)
    assert torch.equal(loose[2], router[2])


def test_new_weights_are_those_of_the_stored_type(gguf_mixtral_bf16: Model, tmp_path: Path) -> None:
    found = calibrated_routers(gguf_mixtral_bf16, planned(gguf_mixtral_bf16, tmp_path), TOKENS, ridge=RIDGE, progress=Silent())
    for router in found.values():
        weights = torch.from_numpy(router)
        assert torch.equal(weights, weights.to(FLOAT_TYPES["BF16"]).float())


@pytest.fixture
def gguf_mixtral_bf16(tiny_mixtral: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A mixture whose source says that it stores its routers in BF16."""
    model = model_as_held(load(str(tiny_mixtral)), NATIVE)
    tensors = tuple(type(t)(t.name, t.shape, "BF16" if "ffn_gate_inp" in t.name else t.stored) for t in model.tensors)
    monkeypatch.setattr(model.source, "tensors", tensors)
    return model


def test_a_model_without_routers_is_refused(llama_96: Path) -> None:
    with pytest.raises(ModelError) as caught:
        calibrated_routers(load(str(llama_96)), {}, TOKENS, ridge=RIDGE, progress=Silent())
    sentence(caught.value, "not a mixture of experts")
