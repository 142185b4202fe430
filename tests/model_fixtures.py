"""Session fixtures: tiny random models on disk, as `save_pretrained` writes them and as GGUF files, and finished fits of two of them."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bitwright.compress import Bytes, GgmlCodec, Model, PackedTensors, load, open_source
from bitwright.engines import LLAMA_CPP, Recipe
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.spaces import Tensor
from tests.commands import Cli, command
from tests.compress import tiny_models as tiny
from tests.fits import Fit, made
from tests.made_once import made_once, shared_folder
from tests.trained_mixture import trained_mixture


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what the contracts run in another process as slow, since the contracts themselves know no marker of this suite."""
    for item in items:
        if "another_process" in item.name:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Exempt from the garbage collector what was imported: a full collection would walk some millions of objects that stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models this small are many times slower on several threads where other work shares the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _nothing_compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """BoTorch runs in Python alone, as it does where there is no C++ compiler: its kernel would be compiled anew in every process.

    What is begun to be compiled has a folder of the session's own, so that a run that is killed leaves no lock in the user's cache.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("extensions")))
        patched.setenv("CXX", "false")
        yield


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the session's models, which no test changes."""
    return shared_folder(tmp_path_factory)


def saved(folder: Path, model_type: str, settings: dict[str, Any]) -> Path:
    """A model of bfloat16 weights with Llama's kind of SentencePiece tokenizer, saved to `folder`."""
    tokenizer = tiny.sentence_pieces(folder, "llama-spm")
    tiny.module(model_type, settings, dtype=torch.bfloat16).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _saved_once(folder: Path, model_type: str, settings: dict[str, Any]) -> Path:
    return made_once(folder, lambda place: saved(place, model_type, settings))


@pytest.fixture(scope="session")
def llama_256(model_folders: Path) -> Path:
    """Two blocks with rows of 256 and 512 weights, so that every format fits."""
    return _saved_once(model_folders / "llama_256", "llama", {"hidden_size": 256, "intermediate_size": 512, "num_key_value_heads": 4})


@pytest.fixture(scope="session")
def llama_96(model_folders: Path) -> Path:
    """Rows of 96 and 192 weights, which the formats with blocks of 256 do not fit."""
    return _saved_once(model_folders / "llama_96", "llama", {"hidden_size": 96, "intermediate_size": 192, "num_key_value_heads": 4})


@pytest.fixture(scope="session")
def llama_64(model_folders: Path) -> Path:
    """Heads of 64 numbers, which blocks divide and llama.cpp turns, and a context that its cache can outgrow its weights in."""
    shape = {"hidden_size": 96, "intermediate_size": 192, "head_dim": 64, "num_key_value_heads": 4, "max_position_embeddings": 4096}
    return _saved_once(model_folders / "llama_64", "llama", shape)


@pytest.fixture(scope="session")
def llama_tied(model_folders: Path) -> Path:
    """Save a model with one matrix for the token embedding and the output head."""
    return _saved_once(model_folders / "llama_tied", "llama", {"tie_word_embeddings": True})


@pytest.fixture(scope="session")
def llama_gqa(model_folders: Path) -> Path:
    """Four query heads for each head of keys and values."""
    return _saved_once(model_folders / "llama_gqa", "llama", {"num_attention_heads": 8, "num_key_value_heads": 2})


@pytest.fixture(scope="session")
def tiny_mixtral(model_folders: Path) -> Path:
    """Four experts a block, two of them for each token."""
    return _saved_once(model_folders / "tiny_mixtral", "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2})


@pytest.fixture(scope="session")
def one_block_mixtral(model_folders: Path) -> Path:
    """Four experts in one block, for what is done to each expert and takes twice as long for two blocks."""
    settings = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 1}
    return _saved_once(model_folders / "one_block_mixtral", "mixtral", settings)


@pytest.fixture(scope="session")
def tiny_qwen3_moe(model_folders: Path) -> Path:
    """Four experts a block, two of them for each token, under other names."""
    return _saved_once(model_folders / "tiny_qwen3_moe", "qwen3_moe", {**tiny.EXPERTS, "norm_topk_prob": True, "head_dim": 16})


@pytest.fixture(scope="session")
def trained_moe(model_folders: Path) -> Path:
    """Eight experts a block, one of them for each token, two of which are copies; trained in a few seconds."""
    return made_once(model_folders / "trained_moe", trained_mixture)


@pytest.fixture(scope="session")
def gguf_256(llama_256: Path, model_folders: Path) -> Path:
    """`llama_256` as a GGUF file, its matrices in BF16."""
    return _as_gguf(llama_256, model_folders)


@pytest.fixture(scope="session")
def gguf_96(llama_96: Path, model_folders: Path) -> Path:
    """`llama_96` as a GGUF file, its matrices in BF16."""
    return _as_gguf(llama_96, model_folders)


@pytest.fixture(scope="session")
def gguf_quantized(gguf_256: Path, model_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write `llama_256` as a GGUF file with matrices in Q8_0, Q4_K, Q6_K and IQ4_NL."""
    source = open_source(str(gguf_256))
    kinds = {"token_embd": "Q8_0", "output": "Q6_K", "ffn_down": "Q6_K", "ffn_up": "IQ4_NL", "attn_q": "Q4_K", "attn_v": "Q8_0"}
    formats = {tensor.name: form for tensor in source.tensors if (form := kinds.get(tensor.name.split(".")[-2]))}
    levels = PackedTensors(tmp_path_factory.mktemp("levels"), source, GgmlCodec(), {})

    def write(path: Path) -> None:
        write_gguf(path, Recipe(source, formats), lambda tensor: levels.encode(tensor, LLAMA_CPP.format(formats[tensor.name])))

    return made_once(model_folders / "llama_256_quantized.gguf", write)


@pytest.fixture(scope="session")
def fit_of_folder(llama_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Run a fit of `llama_256`; a test that changes its folder works on a copy, as with the one below."""
    return made(llama_256, tmp_path_factory.mktemp("fit") / "folder")


@pytest.fixture(scope="session")
def fit_of_gguf(gguf_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Finished fit of a GGUF file."""
    return made(gguf_256, tmp_path_factory.mktemp("fit") / "gguf")


@pytest.fixture(params=["fit_of_folder", "fit_of_gguf"])
def fit(request: pytest.FixtureRequest) -> Fit:
    """Finished fit of a folder and of a GGUF file."""
    found: Fit = request.getfixturevalue(request.param)
    return found


def _as_gguf(model: Path, folder: Path) -> Path:
    recipe = Recipe(open_source(str(model)), {})
    return made_once(folder / f"{model.name}.gguf", lambda path: write_gguf(path, recipe, _nothing_packed))


def _nothing_packed(tensor: Tensor) -> Bytes:
    raise AssertionError(f"{tensor.name} was to be copied")


@pytest.fixture
def bitwright(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`bitwright(*words)` is the command with these words."""
    return command(monkeypatch, capsys)


# --- loaded; no test may leave their weights changed


@pytest.fixture(scope="session")
def dense(llama_256: Path) -> Model:
    """Loaded Llama of 256 columns."""
    return load(str(llama_256))


@pytest.fixture(scope="session")
def tied(llama_tied: Path) -> Model:
    """Loaded Llama with tied embeddings."""
    return load(str(llama_tied))


@pytest.fixture(scope="session")
def mixtral(tiny_mixtral: Path) -> Model:
    """Loaded mixture of experts."""
    return load(str(tiny_mixtral))
