"""Opening a model: one opening decides what it is, and says in a sentence what disagrees within it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bitwright.compress import load, open_checkpoint_files, open_source
from bitwright.compress.models.opening import open_checkpoint
from bitwright.errors import ModelError
from tests.sentences import sentence

IDS = torch.tensor([[1, 17, 300, 42, 5, 260, 99, 3]])
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a session's model that a test may change."""
    return lambda name: Path(shutil.copytree(request.getfixturevalue(name), tmp_path / name))


def weights_changed(folder: Path, **tensors: torch.Tensor) -> None:
    save_file(load_file(folder / WHOLE) | tensors, folder / WHOLE, {"format": "pt"})


def refused(folder: Path, *values: object) -> None:
    """Require that everything that opens a model refuses the folder in the same words."""
    messages = set()
    for opened in (load, open_source, open_checkpoint_files):
        with pytest.raises(ModelError) as caught:
            opened(str(folder))
        messages.add(sentence(caught.value, folder, *values))
    assert len(messages) == 1


def test_a_model_is_opened_once_until_a_file_changes(copied: Callable[[str], Path]) -> None:
    folder = copied("llama_gqa")
    first, before = open_checkpoint(str(folder)), open_source(str(folder)).fingerprint
    assert open_checkpoint(str(folder)) is first
    assert load(str(folder)).source is open_source(str(folder))
    weights_changed(folder, **{"model.norm.weight": torch.ones(64, dtype=torch.bfloat16)})
    assert open_checkpoint(str(folder)) is not first
    assert open_source(str(folder)).fingerprint != before


@pytest.mark.parametrize("model", ["llama_tied", "tiny_mixtral", "tiny_qwen3_moe"])
def test_the_module_is_the_one_that_transformers_loads(model: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    loaded, direct = load(str(folder)).module, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for (name, found), (_, expected) in zip(loaded.state_dict().items(), direct.state_dict().items(), strict=True):
        assert torch.equal(found, expected), name
    with torch.inference_mode():
        assert torch.equal(loaded(IDS).logits, direct(IDS).logits)


def test_two_loads_do_not_share_a_module(llama_tied: Path) -> None:
    one, other = load(str(llama_tied)), load(str(llama_tied))
    with torch.no_grad():
        one.module.get_input_embeddings().weight.zero_()
    assert other.module.get_input_embeddings().weight.any()


# --- what disagrees


def test_a_tied_head_of_its_own_is_refused_and_a_copy_is_not(copied: Callable[[str], Path]) -> None:
    folder = copied("llama_tied")
    embedding = load_file(folder / WHOLE)["model.embed_tokens.weight"]
    before = open_source(str(folder)).fingerprint
    weights_changed(folder, **{"lm_head.weight": embedding.clone()})
    assert open_source(str(folder)).fingerprint == before
    embedding[7, 3] += 1
    weights_changed(folder, **{"lm_head.weight": embedding})
    refused(folder, "lm_head.weight", "model.embed_tokens.weight", "tie_word_embeddings", WHOLE)


def test_weights_beside_an_index_of_others_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("llama_gqa")
    save_file(load_file(folder / WHOLE), folder / "model-1.safetensors", {"format": "pt"})
    places = dict.fromkeys(load_file(folder / WHOLE), "model-1.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    refused(folder, WHOLE, INDEX, "model-1.safetensors")
    (folder / WHOLE).unlink()
    assert load(str(folder)).tensors


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ({"model.norm.weight": "model-2.safetensors"}, ("model.norm.weight", "model-1.safetensors", "model-2.safetensors")),
        ({"model.norm.weight": None}, ("model.norm.weight", INDEX, "nothing of it")),
        ({"model.extra.weight": "model-1.safetensors"}, ("model.extra.weight", "no shard", "model-1.safetensors")),
        ({"model.norm.weight": "../model-1.safetensors"}, ("weight_map",)),
        ({"model.norm.weight": 3}, ("weight_map",)),
    ],
)
def test_an_index_that_is_not_that_of_its_shards_is_refused(said: dict[str, Any], values: tuple[str, ...], copied: Callable[[str], Path]) -> None:
    folder = copied("llama_gqa")
    (folder / WHOLE).rename(folder / "model-1.safetensors")
    save_file({"model.rotary_emb.inv_freq": torch.ones(4)}, folder / "model-2.safetensors", {"format": "pt"})
    places = dict.fromkeys(load_file(folder / "model-1.safetensors"), "model-1.safetensors") | {"model.rotary_emb.inv_freq": "model-2.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    assert open_source(str(folder)).tensors, "rotary frequencies are computed and need not be read"
    changed = {name: place for name, place in (places | said).items() if place is not None}
    (folder / INDEX).write_text(json.dumps({"weight_map": changed}), encoding="utf-8")
    refused(folder, *values)


def test_a_tensor_in_two_shards_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("llama_gqa")
    weights = load_file(folder / WHOLE)
    (folder / WHOLE).rename(folder / "model-1.safetensors")
    save_file({"model.norm.weight": weights["model.norm.weight"]}, folder / "model-2.safetensors", {"format": "pt"})
    places = dict.fromkeys(weights, "model-1.safetensors") | {"lm_head.weight": "model-2.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    refused(folder, "model.norm.weight", "model-1.safetensors", "model-2.safetensors")


def test_eight_bit_floats_whose_scales_nothing_names_are_refused_when_they_are_opened(copied: Callable[[str], Path]) -> None:
    """ModelOpt writes them so, where its `hf_quant_config.json` was lost."""
    folder = copied("llama_gqa")
    name = "model.layers.0.mlp.up_proj.weight"
    codes = load_file(folder / WHOLE)[name].to(torch.float8_e4m3fn)
    weights_changed(folder, **{name: codes, f"{name}_scale": torch.ones(1)})
    refused(folder, f"{name}_scale", "plain floats")


def test_any_tensor_that_nothing_reads_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("tiny_mixtral")
    weights_changed(folder, **{"model.layers.0.self_attn.k_norm.weight": torch.ones(8), "model.layers.2.input_layernorm.weight": torch.ones(8)})
    refused(folder, "model.layers.0.self_attn.k_norm.weight", "2 such")


# --- what is part of a model beside its weights


def changed(folder: Path, file: str, **settings: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")


def test_settings_are_the_configuration_and_the_tokenizer(copied: Callable[[str], Path]) -> None:
    folder = copied("llama_gqa")
    before = open_source(str(folder))
    changed(folder, "config.json", transformers_version="9.9", dtype="float16", _name_or_path="elsewhere")
    assert open_source(str(folder)).settings == before.settings
    changed(folder, "config.json", rms_norm_eps=0.01)
    after = open_source(str(folder))
    assert after.fingerprint == before.fingerprint
    assert {key for key in after.settings if after.settings[key] != before.settings.get(key)} == {"rms_norm_eps"}
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = described["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    assert open_source(str(folder)).settings["tokenizer.json"] != after.settings["tokenizer.json"]


def test_settings_of_a_file_are_its_metadata(gguf_256: Path, tmp_path: Path) -> None:
    source = open_source(str(gguf_256))
    assert source.settings["llama.rope.freq_base"] == "10000.0"
    assert source.settings["tokenizer.ggml.tokens"].startswith("sha256 ")
    assert not any(key.startswith("general.") and key != "general.architecture" for key in source.settings)
    raw, eps = gguf_256.read_bytes(), b"llama.attention.layer_norm_rms_epsilon"
    at = raw.index(eps) + len(eps) + 4
    (tmp_path / "other.gguf").write_bytes(raw[:at] + torch.tensor([0.5]).numpy().tobytes() + raw[at + 4 :])
    other = open_source(str(tmp_path / "other.gguf"))
    assert other.fingerprint == source.fingerprint
    assert {key for key in source.settings if source.settings[key] != other.settings[key]} == {eps.decode()}
