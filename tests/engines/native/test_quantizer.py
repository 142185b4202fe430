"""Plain `from_pretrained` on native checkpoints: the same logits as the decoded weights, packed memory, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from bitwright.engines.native.packed_modules import PackedMatrix, PackedStack, footprint_bytes
from bitwright.errors import ModelError
from tests.compress import tiny_models as tiny
from tests.compress.native_folders import Made, write_native
from tests.sentences import sentence

pytestmark = pytest.mark.slow

IDS = torch.tensor([[5, 9, 17, 33, 65, 5, 100, 7], [1, 2, 3, 4, 5, 6, 7, 8]])
FAMILIES = (
    "llama-tied",
    "llama-biases",
    "mixtral",
    "qwen2",
    "qwen2-moe",
    "qwen3",
    "qwen3-moe",
    "olmoe",
    "deepseek-v2",
    "deepseek-v3",
    "gemma",
    "gemma2",
    "gemma3",
)


def opened(folder: Path, **settings: Any) -> PreTrainedModel:
    module: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, **settings)
    return module


def written(folder: Path, family: str) -> tuple[PreTrainedModel, Made]:
    model_type, settings, _ = tiny.FAMILIES[family]
    module = tiny.module(model_type, settings, dtype=torch.float32)
    return module, write_native(module, folder)


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native") / "mixtral"
    written(folder, "mixtral")
    return folder


@pytest.fixture
def broken(mixtral: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((mixtral / name).read_bytes())
    return tmp_path


def set_up(folder: Path, **changes: Any) -> None:
    """Change the settings of a checkpoint."""
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_are_those_of_the_decoded_weights(family: str, tmp_path: Path) -> None:
    dense, made = written(tmp_path, family)
    packed = opened(tmp_path, dtype=torch.float32, attn_implementation="eager")
    layers = {name: layer for name, layer in packed.named_modules() if isinstance(layer, PackedMatrix)}
    assert len(layers) == made.n_given + (packed.get_output_embeddings().weight is packed.get_input_embeddings().weight)
    with torch.inference_mode():
        expected, found = dense(IDS).logits, packed(IDS).logits
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert packed.generate(IDS, max_new_tokens=4, do_sample=False).tolist() == dense.generate(IDS, max_new_tokens=4, do_sample=False).tolist()


@pytest.mark.parametrize("family", ["llama-tied", "qwen2-moe"])
def test_memory_is_that_of_the_file(family: str, tmp_path: Path) -> None:
    _, made = written(tmp_path, family)
    assert footprint_bytes(opened(tmp_path, dtype=torch.float32)) == sum(tensor.nbytes for tensor in made.tensors.values())


def test_an_expert_is_expanded_only_when_it_is_chosen(mixtral: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = opened(mixtral)
    experts = next(layer for layer in module.modules() if any(isinstance(inner, PackedStack) for inner in layer.children()))
    seen: list[tuple[int, int]] = []
    rows = PackedMatrix.rows
    monkeypatch.setattr(PackedMatrix, "rows", lambda layer, wanted: (seen.append(layer.shape), rows(layer, wanted))[1])
    out = experts(torch.ones(3, 64), torch.tensor([[2], [2], [2]]), torch.ones(3, 1))
    assert out.shape == (3, 64)
    assert len(seen) == 3


def test_half_precision_computes_in_half_precision(mixtral: Path) -> None:
    wide, narrow = opened(mixtral, dtype=torch.float32), opened(mixtral, dtype=torch.bfloat16)
    with torch.inference_mode():
        expected, found = wide(IDS).logits, narrow(IDS).logits
    assert found.dtype == torch.bfloat16
    assert (found - expected).abs().mean() < 0.1 * expected.abs().mean()


def test_what_was_loaded_can_be_saved_and_loaded_again(mixtral: Path, tmp_path: Path) -> None:
    module = opened(mixtral, dtype=torch.float32)
    module.save_pretrained(tmp_path)
    again = opened(tmp_path, dtype=torch.float32)
    with torch.inference_mode():
        assert torch.equal(again(IDS).logits, module(IDS).logits)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, ("schema 2", "update bitwright")),
        ({"schema": "new"}, ("schema new",)),
        ({"extra": 1}, ("extra",)),
        ({"formats": None}, ("no formats",)),
        ({"formats": {"model.embed_tokens": "INT9_G32"}}, ("model.embed_tokens", "INT9_G32")),
        ({"formats": {}}, ("lacks model.layers.0.mlp.experts.0.",)),
        ({"formats": {"model.embed_tokens": "DROP"}}, ("model.embed_tokens", "Only experts")),
        ({"formats": {"model.layers.0.mlp.experts.0.up_proj": "DROP x"}}, ("DROP x",)),
    ],
)
def test_settings_that_are_not_known_are_refused(broken: Path, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    set_up(broken, **changes)
    with pytest.raises(ModelError) as caught:
        opened(broken)
    sentence(caught.value, *words)


def test_a_layer_that_the_model_does_not_have_is_refused(broken: Path) -> None:
    formats = json.loads((broken / "config.json").read_text())["quantization_config"]["formats"]
    set_up(broken, formats=formats | {"model.embed": "INT4_G32"})
    with pytest.raises(ModelError) as caught:
        opened(broken)
    sentence(caught.value, "only layers of its model", "model.embed")


def test_a_shard_that_is_cut_off_is_refused(broken: Path) -> None:
    shard = broken / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ModelError) as caught:
        opened(broken)
    sentence(caught.value, shard)


def test_a_missing_shard_is_refused(broken: Path) -> None:
    (broken / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(ModelError) as caught:
        opened(broken)
    sentence(caught.value, "model-1.safetensors")


def test_a_weight_of_another_size_is_refused(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    set_up(broken, formats=config["quantization_config"]["formats"] | {"model.layers.0.self_attn.o_proj": "INT8_G32"})
    with pytest.raises(ModelError) as caught:
        opened(broken)
    sentence(caught.value, "model.layers.0.self_attn.o_proj.weight")


def test_transformers_alone_stops(mixtral: Path, broken: Path) -> None:
    """transformers without bitwright skips the settings with a warning; the weights must then not load as if they were floats."""
    set_up(broken, quant_method="unheard of")
    with pytest.raises(RuntimeError, match=r"mismatch|conversion"):
        opened(broken)


def test_the_bias_of_a_packed_tied_head_has_an_entry_for_each_token(tmp_path: Path) -> None:
    settings = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "is_decoder": True}
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model("roberta", **settings, tie_word_embeddings=True)).eval()
    with torch.no_grad():
        module.lm_head.bias.normal_()
    write_native(module, tmp_path)
    loaded = opened(tmp_path, dtype=torch.float32)
    assert loaded.get_output_embeddings().bias.shape == (96,)
    torch.testing.assert_close(loaded(IDS % 96).logits, module(IDS % 96).logits)
