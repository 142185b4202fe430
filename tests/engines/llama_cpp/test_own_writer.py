"""Comparison of our own writer with llama.cpp's converter, key by key and tensor by tensor, for the families that it knows.

It needs the converter, so it runs where that can be installed or is in the cache already, and is skipped elsewhere.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import GgufSource, open_source
from bitwright.engines.llama_cpp.converter import Converter, converter_named
from bitwright.errors import LibraryError
from bitwright.progress import Silent
from tests.compress import tiny_models as tiny

pytestmark = pytest.mark.slow

#: families whose SentencePiece tokenizers the converter reads; byte-level ones of a test have no digest that it knows
FAMILIES = ["llama-tied", "mistral", "mixtral", "gemma", "gemma2", "gemma3"]
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
    model_type, settings, tokenizer = tiny.FAMILIES[family]
    folder = tmp_path / family
    words = tiny.sentence_pieces(folder, tokenizer)
    tiny.module(model_type, settings, dtype=torch.bfloat16).to(torch.bfloat16).save_pretrained(folder)
    words.save_pretrained(folder)
    ours, theirs = open_source(str(folder)), GgufSource(converter.convert(folder, Silent()))
    tensors = {tensor.name: tensor for tensor in theirs.tensors}
    assert {tensor.name: (tensor.shape, tensor.stored) for tensor in ours.tensors} == {n: (t.shape, t.stored) for n, t in tensors.items()}
    for tensor in ours.tensors:
        assert np.array_equal(ours.read(tensor), theirs.read(tensors[tensor.name])), tensor.name
    known, wanted = ({entry.key.removeprefix(f"{s.architecture}."): entry.value for entry in s.metadata} for s in (ours, theirs))
    differing = {key for key in known.keys() | wanted.keys() if not _same(known.get(key), wanted.get(key))}
    assert not {key for key in differing - DIFFERS.keys() if not key.startswith(TOKENIZER)}


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.float32(one) == np.float32(other))
    if isinstance(one, list) and isinstance(other, list) and one and isinstance(one[0], float):
        return bool(np.allclose(one, other))
    return one == other
