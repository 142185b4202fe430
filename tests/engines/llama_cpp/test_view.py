"""A folder whose family no table knows is bound to its GGUF file by values, and a file of another model is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM

from bitwright.compress import GGUF_VIEW, ParameterSlice, load, open_headers, open_source, split_name
from bitwright.engines.container import Recipe
from bitwright.engines.llama_cpp.converter import Converter
from bitwright.engines.llama_cpp.gguf_writer import write_gguf
from bitwright.engines.llama_cpp.view import LLAMA_CPP_VIEW
from bitwright.errors import LibraryError, ModelError, UserError
from bitwright.pipeline import name_with
from bitwright.progress import Progress, Silent
from tests.model_fixtures import saved
from tests.sentences import sentence

LAYER = "model.layers.{}.{}.weight"
PARTS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}
PARTS |= {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


@pytest.fixture(scope="module")
def stablelm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family of which our own writer knows nothing."""
    return saved(tmp_path_factory.mktemp("odd") / "stablelm", "stablelm", {})


def convert(folder: Path, path: Path, *, other: str = "", bare: str = "") -> Path:
    """Write what a converter would: the matrix `other` of another model, and a tensor `bare` that the module does not have."""
    weights = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    named = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight", "output_norm.weight": "model.norm.weight"}
    named |= {f"blk.{i}.{role}.weight": LAYER.format(i, part) for i in range(2) for role, part in PARTS.items()}
    writer = GGUFWriter(path, "stablelm")
    writer.add_block_count(2)
    writer.add_context_length(128)
    for name, parameter in named.items():
        writer.add_tensor(name, (weights[parameter].sin() * 2 if name == other else weights[parameter]).numpy())
    if bare:
        writer.add_tensor(bare, np.linspace(5, 9, 32, dtype=np.float32).reshape(1, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_an_unknown_family_is_bound_to_its_file(stablelm: Path, tmp_path: Path) -> None:
    name = name_with(str(stablelm), gguf=str(convert(stablelm, tmp_path / "s.gguf")), converter="")
    model = load(name, view=LLAMA_CPP_VIEW)
    assert (model.source.name, model.source.architecture) == (name, "stablelm")
    assert model.pieces["blk.1.ffn_down.weight"] == (ParameterSlice(LAYER.format(1, "mlp.down_proj"), -1, range(64)),)
    assert len(model.pieces) == 2 + 2 * len(PARTS)
    assert not model.notes
    headers = open_headers(name, LLAMA_CPP_VIEW).least
    assert headers.tensors == model.tensors
    assert headers.context_length == 128


def test_a_small_matrix_that_the_module_lacks_stays_with_a_note(stablelm: Path, tmp_path: Path) -> None:
    name = f"{stablelm}+{convert(stablelm, tmp_path / 's.gguf', bare='blk.0.extra.weight')}"
    (note,) = load(name, view=LLAMA_CPP_VIEW).notes
    assert "1 matrices" in note
    assert "not in its module: blk.0.extra.weight" in note


def test_a_file_of_another_model_is_refused_with_the_first_tensor_that_differs(stablelm: Path, tmp_path: Path) -> None:
    path = convert(stablelm, tmp_path / "s.gguf", other="blk.1.attn_v.weight")
    with pytest.raises(ModelError) as caught:
        load(f"{stablelm}+{path}", view=LLAMA_CPP_VIEW)
    sentence(caught.value, path, stablelm, "first in blk.1.attn_v.weight", "1 of 17 tensors")


@pytest.mark.parametrize(("name", "value"), [("rms_norm_eps", 2e-5), ("rope_parameters", {"rope_type": "default", "rope_theta": 10_001.0})])
def test_a_file_with_other_settings_than_its_folder_is_refused(name: str, value: object, llama_gqa: Path, tmp_path: Path) -> None:
    folder, file = Path(shutil.copytree(llama_gqa, tmp_path / "model")), tmp_path / "own.gguf"
    source = open_source(str(folder), GGUF_VIEW)
    write_gguf(file, Recipe(source, {}), source.stored)
    both = name_with(str(folder), gguf=str(file), converter="")
    before = open_source(both, LLAMA_CPP_VIEW)
    assert {"llama.rope.freq_base", "hidden_act"} <= before.settings.keys()  # those of the file, and those that torch computes by
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(said | {"hidden_act": "gelu"}), encoding="utf-8")
    assert open_source(both, LLAMA_CPP_VIEW).settings != before.settings
    (folder / "config.json").write_text(json.dumps(said | {name: value}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        open_headers(both, LLAMA_CPP_VIEW)
    sentence(caught.value, file, "config.json", "own.gguf")


def test_a_known_family_with_its_own_file_is_bound_as_the_table_says(llama_gqa: Path, tmp_path: Path) -> None:
    ours = load(str(llama_gqa), view=GGUF_VIEW)
    path = tmp_path / "ours.gguf"
    write_gguf(path, Recipe(ours.source, {}), ours.source.stored)
    model = load(f"{llama_gqa}+{path}", view=LLAMA_CPP_VIEW)
    assert model.pieces == ours.pieces
    assert open_source(str(llama_gqa), LLAMA_CPP_VIEW).tensors == ours.tensors


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        ("folder", {"gguf": "no.gguf", "converter": ""}, "--gguf"),
        ("folder", {"gguf": "", "converter": "nowhere"}, "nowhere"),
        ("folder", {"gguf": "a.gguf", "converter": "b"}, "--gguf or --converter"),
        ("model.gguf", {"gguf": "a.gguf", "converter": ""}, "model.gguf is a GGUF file itself"),
    ],
)
def test_ways_that_are_none_are_refused(model: str, given: dict[str, str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        name_with(model, **given)
    sentence(caught.value, words)


def test_a_name_with_a_plus_of_its_own_is_no_joined_name(tmp_path: Path) -> None:
    (tmp_path / "a+b").mkdir()
    (tmp_path / "b").mkdir()
    assert split_name(str(tmp_path / "a+b")) == (str(tmp_path / "a+b"), "")
    assert split_name("c++") == ("c++", "")


def test_a_known_family_that_our_writer_refuses_shows_that_a_converter_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "llama", "llama", {})
    for file in folder.glob("tokenizer*"):
        file.unlink()
    noted: list[str] = []

    def missing(path: str, progress: Progress) -> Converter:
        progress.note(f"installing {path}")
        raise LibraryError("There must be a network; there is none: connect.")

    class Noting(Silent):
        def note(self, sentence: str) -> None:
            noted.append(sentence)

    monkeypatch.setattr("bitwright.engines.llama_cpp.view.converter_named", missing)
    with pytest.raises(ModelError) as caught:
        LLAMA_CPP_VIEW.prepare(str(folder), Noting())
    sentence(caught.value, "tokenizer", folder)
    assert noted == ["installing "]
