"""Loading a model by its name, and what is refused on the way."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, BertModel, GgufConfig, ViTConfig, ViTModel

from bitwright.compress import GgmlCodec, GgufSource, Model, PackedTensors, load, open_source
from bitwright.compress.models.gguf.gguf_tokenizer import EXPRESSIONS
from bitwright.engines import LLAMA_CPP, Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.errors import ModelError
from tests.compress import tiny_models as tiny
from tests.sentences import sentence

IDS = torch.tensor([[1, 17, 300, 42, 5, 260, 99, 3]])


def logits(model: Model) -> torch.Tensor:
    with torch.inference_mode():
        return model.module(IDS).logits


def refused(name: Path | str, *values: object) -> str:
    messages = []
    for opened in (load, open_source):
        with pytest.raises(ModelError) as caught:
            opened(str(name))
        messages.append(sentence(caught.value, *values))
    assert messages[0] == messages[1]
    return messages[0]


@pytest.fixture
def folder(llama_gqa: Path, tmp_path: Path) -> Path:
    """A copy of a model that a test may break."""
    return Path(shutil.copytree(llama_gqa, tmp_path / "model"))


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def as_gguf(folder: Path, path: Path) -> Path:
    source = open_source(str(folder))
    write_gguf(path, Recipe(source, {}), source.stored)
    return path


# --- what is loaded


@pytest.mark.parametrize("name", ["llama_256", "llama_96", "llama_tied", "llama_gqa"])
def test_a_file_and_its_folder_are_one_model(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    from_folder, from_file = load(str(folder)), load(str(as_gguf(folder, tmp_path / "model.gguf")))
    assert torch.equal(logits(from_folder), logits(from_file))
    assert from_folder.pieces == from_file.pieces
    assert from_folder.tensors == from_file.tensors
    assert from_folder.source.fingerprint == from_file.source.fingerprint
    text = "Once upon a time, there were 12 bowls of naïve porridge.\n"
    assert from_folder.tokenizer(text)["input_ids"] == from_file.tokenizer(text)["input_ids"]


@pytest.mark.parametrize("split", ["llama-bpe", "smollm"])
def test_text_is_split_alike_in_a_file_and_its_folder(split: str, folder: Path, tmp_path: Path) -> None:
    """transformers forgets the expressions of a pre-tokenizer when it reads a GGUF file."""
    for file in folder.glob("tokenizer*"):
        file.unlink()
    tiny.byte_level(split, EXPRESSIONS).save_pretrained(folder)
    from_folder, from_file = load(str(folder)), load(str(as_gguf(folder, tmp_path / "model.gguf")))
    for text in tiny.SAMPLES:
        pieces = [model.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text) for model in (from_folder, from_file)]
        assert pieces[0] == pieces[1]  # the tokens of a tiny vocabulary hardly show it


def test_a_quantized_file_is_loaded_as_its_codec_reads_it(gguf_quantized: Path, llama_256: Path) -> None:
    model = load(str(gguf_quantized))
    for tensor in model.tensors:
        if tensor.name in model.pieces:
            rows = [piece.to_engine(model.module.get_parameter(piece.parameter).detach()) for piece in model.pieces[tensor.name]]
            assert np.array_equal(torch.cat(rows).numpy(), model.source.read(tensor))
    assert not torch.equal(logits(model), logits(load(str(llama_256))))


def test_what_is_loaded_is_what_transformers_loads(llama_256: Path) -> None:
    model = load(str(llama_256))
    direct = AutoModelForCausalLM.from_pretrained(llama_256, dtype=torch.float32).eval()
    with torch.inference_mode():
        assert torch.equal(logits(model), direct(IDS).logits)


@pytest.mark.parametrize("name", ["llama_256", "tiny_mixtral", "gguf_256"])
def test_a_loaded_model_is_ready_to_be_measured(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    model = load(str(path))
    assert not model.module.training
    assert {weight.dtype for weight in model.module.parameters()} == {torch.float32}
    assert not any(weight.requires_grad for weight in model.module.parameters())
    assert model.device == torch.device("cpu")
    assert model.source.name == str(path)
    assert model.tensors == open_source(str(path)).tensors
    shapes = {tensor.name: tensor.shape for tensor in model.tensors}
    for matrix, pieces in model.pieces.items():
        assert sum(piece.n_rows for piece in pieces) == np.prod(shapes[matrix][:-1])


def test_a_file_is_read_whatever_lies_beside_it(gguf_256: Path, tiny_mixtral: Path, llama_256: Path, tmp_path: Path) -> None:
    """GGUF files on the hub lie beside the files of other models."""
    beside = Path(shutil.copytree(tiny_mixtral, tmp_path / "beside"))
    change(beside / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", bos_token="<|other|>", add_bos_token=False)
    file = Path(shutil.copy(gguf_256, beside / "model.gguf"))
    model = load(str(file))
    assert torch.equal(logits(model), logits(load(str(llama_256))))
    assert model.tokenizer("Once upon")["input_ids"] == load(str(gguf_256)).tokenizer("Once upon")["input_ids"]


def test_a_name_without_a_folder_is_a_file_of_this_folder(gguf_256: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gguf_256.parent)
    assert load(gguf_256.name).source.name == gguf_256.name


def test_a_hub_name_is_downloaded_without_pickles_and_code(llama_gqa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def downloaded(name: str, **given: Any) -> str:
        asked.update(given, name=name)
        return str(llama_gqa)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloaded)
    source = open_source("someone/llama-gqa")
    assert source.name == "someone/llama-gqa"
    assert asked["name"] == "someone/llama-gqa"
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(asked["allow_patterns"])
    others = ["consolidated.safetensors", "original/model.safetensors", "pytorch_model.bin", "modeling.py", "notes.txt", "trainer_state.json"]
    assert not any(fnmatch(name, pattern) for name in others for pattern in asked["allow_patterns"])


# --- what is refused


class TransportError(Exception):
    """Error of the library that the hub's client speaks HTTP with, which changes from one version to the next."""


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "missing.gguf", "some/missing.gguf", "with space/model"])
def test_what_is_no_model_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    refused(name, f"'{name}'")


@pytest.mark.parametrize(
    "error",
    [
        OSError("Connection refused\nand more"),
        LocalEntryNotFoundError("An error happened while trying to locate the files on the Hub"),
        HFValidationError("Repo id must be in the form"),
        TransportError("the connection was reset"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_hub_without_an_answer_is_told(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    refused("someone/some-model", "'someone/some-model'", "network")


def test_a_folder_without_a_configuration_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, folder, "config.json")


NONSENSE = ["", "{", "[]", "null", "{}", '{"model_type": 7}', '{"model_type": "no-such-model"}', '{"model_type": "llama", "hidden_size": "big"}']


@pytest.mark.parametrize("content", NONSENSE)
def test_a_configuration_that_says_nothing_is_refused(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    refused(folder, folder)


def test_weights_in_a_pickle_are_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused(folder, folder, "safetensors")


def test_a_pickle_is_not_read_where_other_safetensors_lie_beside_it(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "adapter.safetensors")
    refused(folder, folder)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_broken_weights_are_refused(cut: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    refused(folder, folder)


def test_a_missing_weight_is_not_made_up(folder: Path) -> None:
    """transformers fills what is missing with random numbers and only logs it."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(folder, folder, "model.layers.1.mlp.up_proj.weight")


def test_a_weight_of_another_shape_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(folder, folder, "model.layers.1.mlp.up_proj.weight")


def test_weights_that_are_not_finite_are_refused_when_they_are_quantized(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    source = open_source(str(folder))
    tensor = next(tensor for tensor in source.tensors if tensor.name == "blk.1.ffn_up.weight")
    with pytest.raises(ModelError) as caught:
        PackedTensors(folder, source, GgmlCodec(), {}).packed(tensor, LLAMA_CPP.format("Q8_0"))
    sentence(caught.value, "finite")


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_what_is_no_causal_language_model_is_refused(kind: str, folder: Path) -> None:
    bert = BertConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    vit = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4)
    (folder / "model.safetensors").unlink()
    (BertModel(bert) if kind == "bert" else ViTModel(vit)).save_pretrained(folder)
    refused(folder, "'vit'" if kind == "vit" else "cls.predictions.bias")


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    for file in (*folder.glob("tokenizer*"), *folder.glob("special*")):
        file.unlink()
    refused(folder, folder)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_a_broken_tokenizer_is_refused(content: str, folder: Path) -> None:
    (folder / "tokenizer.model").unlink()
    (folder / "tokenizer.json").write_text(content)
    refused(folder)


def test_the_code_of_a_model_is_never_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "modeling_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass EvilConfig: ...\nclass EvilModel: ...\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # a person who says yes to whatever transformers asks
    maps = {"AutoConfig": "modeling_evil.EvilConfig", "AutoModelForCausalLM": "modeling_evil.EvilModel"}
    change(folder / "config.json", model_type="evil", auto_map=maps)
    refused(folder, folder)
    assert not (tmp_path / "ran").exists()


def test_the_code_of_a_tokenizer_is_never_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tokenization_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass EvilTokenizer: ...\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    tokenizer = {"AutoTokenizer": ["tokenization_evil.EvilTokenizer", "tokenization_evil.EvilTokenizer"]}
    change(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer", auto_map=tokenizer)
    change(folder / "config.json", model_type="llama")
    try:
        load(str(folder))
    except ModelError as error:
        sentence(error)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("unknown", "said"), [("", "is ''"), ("<nowhere>", "")])
def test_an_unknown_token_that_is_no_token_is_refused(folder: Path, unknown: str, said: str) -> None:
    """Transformers takes in what it can, and looks for the number of what it cannot for ever."""
    change(folder / "tokenizer_config.json", unk_token=unknown)
    if said:
        refused(folder, folder, "unk_token", said)
    else:
        assert open_source(str(folder)).tensors


def test_a_type_that_llama_cpp_lacks_is_named(folder: Path) -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=384, n_embd=64, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    refused(folder, "'gpt2'")


# --- GGUF files that transformers reads otherwise than llama.cpp


def test_a_file_that_transformers_misreads_is_refused(tiny_mixtral: Path, tmp_path: Path) -> None:
    file = as_gguf(tiny_mixtral, tmp_path / "mixtral.gguf")
    with pytest.raises(ModelError) as caught:
        load(str(file))
    sentence(caught.value, "Hugging Face")
    assert len(open_source(str(file)).tensors) == len(open_source(str(tiny_mixtral)).tensors)


def test_a_file_whose_settings_transformers_passes_over_is_refused(folder: Path, tmp_path: Path) -> None:
    """The weights are the same, but a rotary embedding that is not stretched computes another model."""
    change(folder / "config.json", rope_parameters={"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0})
    with pytest.raises(ModelError) as caught:
        load(str(as_gguf(folder, tmp_path / "stretched.gguf")))
    sentence(caught.value, "llama.rope.scaling.factor", "Hugging Face")


@pytest.mark.parametrize("file", ["gguf_256", "gguf_quantized"])
def test_weights_of_a_gguf_file_are_those_that_transformers_reads(file: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(file)
    dequantized = GgufConfig(dequantize=True)
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=dequantized)
    ours = load(str(path)).module.state_dict()
    assert ours.keys() == theirs.state_dict().keys()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours[name], weight), name


def test_a_file_with_a_tensor_too_few_is_refused(gguf_256: Path, tmp_path: Path) -> None:
    source = GgufSource(gguf_256)
    source.tensors = tuple(tensor for tensor in source.tensors if tensor.name != "blk.1.ffn_up.weight")
    file = tmp_path / "short.gguf"
    write_gguf(file, Recipe(source, {}), source.stored)
    with pytest.raises(ModelError) as caught:
        load(str(file))
    sentence(caught.value, "blk.1.ffn_up.weight")


def test_a_file_of_another_architecture_is_refused(gguf_256: Path, tmp_path: Path) -> None:
    raw = gguf_256.read_bytes()
    (tmp_path / "other.gguf").write_bytes(raw.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0llamb", 1))
    with pytest.raises(ModelError) as caught:
        load(str(tmp_path / "other.gguf"))
    sentence(caught.value)


def test_loading_says_nothing(llama_256: Path, gguf_256: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(str(llama_256))
    load(str(gguf_256))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
