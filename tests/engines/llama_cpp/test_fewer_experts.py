"""Experts taken away, in llama.cpp and in torch with routers that cannot choose them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import GgmlCodec, GgufSource, Model, PackedTensors, applied, load, narrowed_weights, whole_structure
from bitwright.compress.in_place.dropping import without
from bitwright.engines import engine_named
from bitwright.engines.container import Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.engines.llama_cpp.runtime import LlamaCpp
from bitwright.engines.llama_cpp.target import LLAMA_CPP
from bitwright.engines.narrowed_source import require_droppable
from bitwright.errors import UserError
from bitwright.objectives import next_token_log_probabilities
from bitwright.spaces import STRUCTURE_KINDS, Structure
from tests.compress import tiny_models as tiny
from tests.made_once import made_once
from tests.measuring import random_tokens
from tests.model_fixtures import saved
from tests.sentences import sentence

_CONTEXTS = [random_tokens(1, n, seed=n).ids[0] for n in (2, 9, 30)]
_ENGINE = engine_named("llama.cpp")
_KEPT = ((0, 2, 3), (1, 2, 3), (0, 1, 3))


@pytest.fixture(scope="module", params=["mixtral", "qwen2_moe"])
def mixture(request: pytest.FixtureRequest, model_folders: Path) -> Model:
    """Mixture of three blocks of four experts, two of them for a token; in Qwen2-MoE beside a shared one, and without renormalised weights."""
    shape = {"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 96}
    of_family = {
        "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
        "qwen2_moe": {**tiny.EXPERTS, "shared_expert_intermediate_size": 64},
    }
    settings = {**shape, **of_family[request.param]}
    return load(str(made_once(model_folders / f"fewer-experts-{request.param}", lambda place: saved(place, request.param, settings))))


def dropped(structure: Structure) -> dict[tuple[int, int], int]:
    """Return the experts that a structure does not keep, as the definition says, none with a replacement."""
    return {(i, e): -1 for i, kept in enumerate(structure.experts) for e in range(4) if e not in kept and i not in structure.gone}


@pytest.mark.parametrize("gone", [(), (1,)])
def test_llama_cpp_computes_what_torch_does_with_the_same_experts_gone(gone: tuple[int, ...], mixture: Model, tmp_path: Path) -> None:
    structure = replace(whole_structure(mixture.source), experts=_KEPT).without(gone)
    source, path = _ENGINE.narrowed(mixture.source, structure), tmp_path / "model.gguf"
    write_gguf(path, Recipe(source, {}), source.stored)
    engine = LlamaCpp(path, n_vocabulary=tiny.N_TOKENS, n_threads=1)
    with applied(mixture, narrowed_weights(mixture, {}, structure)):
        measured = next_token_log_probabilities(mixture, _CONTEXTS)
    with applied(mixture, narrowed_weights(mixture, {}, whole_structure(mixture.source).without(gone))), without(mixture, dropped(structure)):
        expected = next_token_log_probabilities(mixture, _CONTEXTS)
    with applied(mixture, source.widened(GgufSource(path))):
        as_written = next_token_log_probabilities(mixture, _CONTEXTS)
    np.testing.assert_allclose(measured, expected, atol=1e-5)
    np.testing.assert_allclose(as_written, expected, atol=1e-5)
    whole = next_token_log_probabilities(mixture, _CONTEXTS)
    for context, p, w in zip(_CONTEXTS, expected, whole, strict=True):
        assert 0 <= tiny.divergence(p, engine.next_token(context.tolist())) < 1e-3
        assert tiny.divergence(w, p) > 1e-3
    assert source.architecture == mixture.source.architecture
    assert {entry.key.rpartition(".")[2]: entry.value for entry in GgufSource(path).metadata}["expert_count"] == 3


def test_what_is_kept_of_a_stack_are_the_bytes_of_its_experts(mixture: Model) -> None:
    source = _ENGINE.narrowed(mixture.source, replace(whole_structure(mixture.source), experts=_KEPT))
    levels, form = PackedTensors(Path(), mixture.source, GgmlCodec(), {}), LLAMA_CPP.format("Q8_0")
    tensors = {tensor.name: tensor for tensor in mixture.tensors}
    name = "blk.1.ffn_gate_exps.weight"
    narrow = next(tensor for tensor in source.tensors if tensor.name == name)
    packed = source.packed(narrow, lambda tensor: levels.encode(tensor, form), {name: form.name})
    wide = levels.encode(tensors[name], form).reshape(4, -1)
    assert narrow.shape == (3, *tensors[name].shape[1:])
    np.testing.assert_array_equal(packed.reshape(3, -1), wide[list(_KEPT[1])])


@pytest.mark.parametrize(
    ("experts", "words"),
    [
        (((0, 1), (0,), (0, 1)), "token is sent to"),
        (((0, 1), (0, 1, 2), (0, 1)), "same number of experts"),
        (((0, 1), (0, 4), (0, 1)), "among those of the model"),
        (((0, 1), (1, 0), (0, 1)), "ascending order"),
        (((0, 1), (0, 1)), "each block"),
    ],
)
def test_experts_that_cannot_go_are_refused(experts: tuple[tuple[int, ...], ...], words: str, mixture: Model) -> None:
    with pytest.raises(UserError) as refused:
        _ENGINE.narrowed(mixture.source, replace(whole_structure(mixture.source), experts=experts))
    sentence(refused.value, words)


@pytest.mark.parametrize(("n_used", "words"), [(4, "4 here"), (2, "none")])
def test_a_model_without_experts_to_spare_is_refused(n_used: int, words: str, model_folders: Path, llama_96: Path) -> None:
    settings = {"num_local_experts": 4, "num_experts_per_tok": n_used, "num_hidden_layers": 1}
    folder = made_once(model_folders / "all-experts-used", lambda place: saved(place, "mixtral", settings)) if n_used == 4 else llama_96
    with pytest.raises(UserError) as refused:
        _ENGINE.require_structure(load(str(folder)).source, ("experts",))
    sentence(refused.value, words)


def test_routers_with_corrections_are_refused(model_folders: Path) -> None:
    family, settings, _ = tiny.FAMILIES["deepseek-v3"]
    source = load(str(made_once(model_folders / "corrected", lambda place: saved(place, family, settings)))).source
    with pytest.raises(UserError) as refused:
        require_droppable(source, ("experts",))
    sentence(refused.value, "corrections", "exp_probs_b")


def test_all_means_what_a_model_can_lose(mixture: Model, llama_96: Path) -> None:
    assert _ENGINE.kinds_taken(mixture.source, STRUCTURE_KINDS) == ("experts", "layers")
    assert _ENGINE.kinds_taken(load(str(llama_96)).source, STRUCTURE_KINDS) == ("attention", "channels", "heads", "layers")
    assert _ENGINE.kinds_taken(mixture.source, ()) == ()
    with pytest.raises(UserError) as refused:
        _ENGINE.kinds_taken(mixture.source, ("heads", "layers"))
    sentence(refused.value, "with experts", "layers")
