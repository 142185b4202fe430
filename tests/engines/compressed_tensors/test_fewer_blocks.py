"""Blocks taken away from checkpoints: what transformers loads computes what the original does without these blocks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bitwright as bw
from bitwright.compress import Model, applied, load, narrowed_weights, open_source, whole_structure
from bitwright.compress import without as rerouted_model
from bitwright.engines import ENGINES, Recipe
from bitwright.engines.native.reload import load_native
from bitwright.errors import UserError
from bitwright.spaces import Structure, StructureKind
from tests.compress import tiny_models as tiny
from tests.made_once import made_once
from tests.measuring import random_tokens
from tests.model_fixtures import saved
from tests.runs import small
from tests.sentences import sentence

_IDS = torch.from_numpy(random_tokens(3, 24, seed=1).ids.astype(np.int64))
_N_LAYERS = 4
_KEPT = Structure((1, 0, 1, 0), (96, 0, 96, 0))
_SETTINGS = {
    "llama": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},  # windows by place, in the last two blocks
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4, "tie_word_embeddings": True},
    "qwen2_moe": {**tiny.EXPERTS, "moe_intermediate_size": 96, "shared_expert_intermediate_size": 96},
}


@pytest.fixture(scope="module", params=_SETTINGS)
def folder(request: pytest.FixtureRequest, model_folders: Path) -> Path:
    shape = {"num_hidden_layers": _N_LAYERS, "intermediate_size": 96, **_SETTINGS[request.param]}
    return made_once(model_folders / f"blocks-{request.param}", lambda place: saved(place, request.param, shape))


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.module(_IDS, use_cache=False).logits
    return found


def without(model: Model, gone: tuple[int, ...]) -> Model:
    """Let blocks add nothing, as the definition says; the others keep their place and their windows."""
    with torch.no_grad():
        for layer in (model.module.model.layers[i] for i in gone):
            for name, weight in layer.named_parameters():
                if "o_proj" in name or "down_proj" in name:
                    weight.zero_()
    return model


@pytest.mark.slow
def test_fewer_blocks_compute_what_the_original_does_without_the_others(folder: Path, tmp_path: Path) -> None:
    """Written files are the same for transformers and for vLLM."""
    engine = ENGINES["transformers"]
    original, container = load(str(folder), view=engine.view), engine.container(str(folder)).keeping(_KEPT)
    source = engine.narrowed(original.source, _KEPT)
    path = container.write(tmp_path / "model", Recipe(source, {}), source.stored)
    assert container.size_bytes(path) == container.fixed_bytes(source, (), tmp_path)
    found = load(str(path))
    assert len(found.module.model.layers) == 2
    assert (logits(found) - logits(original)).abs().max() > 1e-3
    torch.testing.assert_close(logits(found), logits(without(original, _KEPT.gone)), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformers", "vllm"])
@pytest.mark.parametrize("gone", [(), (1,)])
def test_fewer_experts_compute_what_the_original_does_with_routers_that_cannot_choose_the_others(
    gone: tuple[int, ...], name: str, tiny_mixtral: Path, tmp_path: Path
) -> None:
    engine = ENGINES[name]
    original = load(str(tiny_mixtral), view=engine.view)
    kept = replace(whole_structure(original.source), experts=((0, 3), (1, 2, 3)) if gone else ((0, 1, 3), (1, 2, 3))).without(gone)
    source, container = engine.narrowed(original.source, kept), engine.container(str(tiny_mixtral)).keeping(kept)
    path = container.write(tmp_path / "model", Recipe(source, {}), source.stored)
    assert container.size_bytes(path) == container.fixed_bytes(source, (), tmp_path)
    found = load(str(path))
    assert found.module.config.num_local_experts == (2 if gone else 3)
    without_blocks = narrowed_weights(original, {}, whole_structure(original.source).without(gone))
    dropped = {(i, e): -1 for i, of_block in enumerate(kept.experts) for e in range(4) if i not in gone and e not in of_block}
    with applied(original, without_blocks), rerouted_model(original, dropped):
        expected = logits(original)
    torch.testing.assert_close(logits(found), expected, rtol=1e-5, atol=1e-5)
    with applied(original, source.widened(container.written(path))):
        torch.testing.assert_close(logits(original), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [_KEPT, Structure((1, 0, 0, 1), (96, 96, 0, 96))], ids=["layers", "attention"])
def test_native_computes_what_the_original_does_without_what_is_gone(kept: Structure, model_folders: Path, tmp_path: Path) -> None:
    shape = {"num_hidden_layers": _N_LAYERS, "intermediate_size": 96}
    engine, folder = ENGINES["native"], made_once(model_folders / "blocks-llama", lambda place: saved(place, "llama", shape))
    original = load(str(folder), view=engine.view)
    source, container = engine.narrowed(original.source, kept), engine.container(str(folder)).keeping(kept)
    path = container.write(tmp_path / "model", Recipe(source, {}), source.stored)
    assert container.size_bytes(path) == container.fixed_bytes(source, (), tmp_path)
    found = load_native(path, torch.float32)
    assert len(found.model.layers) == _N_LAYERS - len(kept.gone)
    with applied(original, source.widened(container.written(path))):
        as_written = logits(original)
    with torch.no_grad():
        for i in kept.unattended:
            original.module.model.layers[i].self_attn.o_proj.weight.zero_()
    expected = logits(without(original, kept.gone))
    with torch.no_grad():
        torch.testing.assert_close(found(_IDS).logits, expected, rtol=1e-5, atol=1e-6)
        cached = found.generate(_IDS[:1], max_new_tokens=3, do_sample=False, return_dict_in_generate=True, output_logits=True)
        again = found(cached.sequences[:, :-1], use_cache=False).logits[:, -3:]
    torch.testing.assert_close(as_written, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.stack(cached.logits, dim=1), again, rtol=1e-4, atol=1e-5)


# --- in a fit


@pytest.fixture(scope="module")
def fitted(llama_256: Path, tmp_path_factory: pytest.TempPathFactory) -> bw.pipeline.Fitted:
    """Fit within fewer bytes than any formats alone have."""
    settings = small(llama_256, target="transformers", formats=("W8_ROW", "W4_G32"), structure=("layers",))
    by = bw.pipeline.Search(bw.pipeline.method_named("auto"), evaluations=2)
    return bw.fit(settings, bw.parse_budget("4bpw"), tmp_path_factory.mktemp("blocks") / "run", by=by)


@pytest.mark.slow
def test_a_fit_ships_fewer_blocks_as_measured(fitted: bw.pipeline.Fitted, llama_256: Path) -> None:
    plan = fitted.plan
    assert plan.structure is not None
    assert plan.structure.kept.gone == (1,)
    assert plan.structure.compensation is not None
    assert ENGINES["transformers"].container(str(llama_256)).size_bytes(fitted.model) == plan.size_bytes
    assert not fitted.check.broken
    found = load(str(fitted.model))
    assert len(found.module.model.layers) == 1
    again = bw.build(plan, fitted.model.parent / "again")
    assert (again / "model.safetensors").read_bytes() == (fitted.model / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_fit_takes_experts_from_a_mixture_whose_blocks_share_a_format(tiny_mixtral: Path, tmp_path: Path) -> None:
    """Expect one format of all routed experts, which transformers loads, chosen with the number that every block keeps."""
    settings = small(tiny_mixtral, target="transformers", formats=("W8_G32", "W4_G32", "BF16"), structure=("experts", "layers"))
    by = bw.pipeline.Search(bw.pipeline.method_named("auto"), evaluations=2)
    found = bw.fit(settings, bw.parse_budget("7bpw"), tmp_path / "run", by=by)
    plan = found.plan
    assert plan.structure is not None
    kept = [plan.structure.experts[i] for i in range(2) if i not in plan.structure.kept.gone]
    assert len({len(of_block) for of_block in kept}) == 1
    assert len(kept[0]) < 4 or plan.structure.kept.gone
    assert len({form for name, form in plan.formats.items() if ".experts." in name}) == 1
    assert ENGINES["transformers"].container(str(tiny_mixtral)).size_bytes(found.model) == plan.size_bytes
    assert not found.check.broken
    config = load(str(found.model)).module.config
    assert (config.num_local_experts, config.num_hidden_layers) == (len(kept[0]), len(kept))


# --- refused


@pytest.mark.parametrize("kinds", [("heads",), ("attention", "channels", "heads", "layers")])
def test_less_than_blocks_is_refused_before_any_work(kinds: tuple[str, ...], llama_256: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        bw.fit(small(llama_256, target="vllm", formats=(), structure=kinds), bw.parse_budget("6bpw"), tmp_path / "run")
    sentence(refused.value, "vllm", "layers")
    assert not (tmp_path / "run").exists()


def test_a_structure_with_parts_of_blocks_is_refused(llama_256: Path) -> None:
    engine = ENGINES["transformers"]
    whole = open_source(str(llama_256), engine.view)
    with pytest.raises(UserError) as refused:
        engine.narrowed(whole, Structure((1, 1), (512, 256)))
    sentence(refused.value, "whole", "llama.cpp")


@pytest.mark.parametrize(
    ("target", "kinds", "words"),
    [
        ("native", ("experts",), ("mixtures", "none")),
        ("native", ("heads",), ("attention,layers", "heads")),
        ("vllm", ("attention",), ("experts,layers", "attention")),
        ("vllm", ("experts",), ("mixtures", "none")),
    ],
)
def test_what_an_engine_does_not_load_is_refused(target: str, kinds: tuple[StructureKind, ...], words: tuple[str, ...], llama_96: Path) -> None:
    engine = ENGINES[target]
    with pytest.raises(UserError) as refused:
        engine.require_structure(open_source(str(llama_96), engine.view), kinds)
    sentence(refused.value, *words)


def test_an_attention_that_only_native_can_miss_is_refused_elsewhere(llama_96: Path) -> None:
    engine = ENGINES["vllm"]
    with pytest.raises(UserError) as refused:
        engine.narrowed(open_source(str(llama_96), engine.view), Structure((1, 0), (192, 192)))
    sentence(refused.value, "block 1", "native")
