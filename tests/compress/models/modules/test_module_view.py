"""Models of any family through the view of their module, which asks nothing of llama.cpp."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import GGUF_VIEW, LINEAR_VIEW, MODULE_VIEW, load, open_headers, open_source
from bitwright.errors import ModelError
from bitwright.spaces import discover
from tests.compress.models.checkpoints.test_conversions import saved
from tests.sentences import sentence


@pytest.fixture
def phi3(llama_96: Path, tmp_path: Path) -> Path:
    saved("phi3", tmp_path)
    for file in (*llama_96.glob("tokenizer*"), *llama_96.glob("special*")):
        shutil.copy(file, tmp_path)
    return tmp_path


def test_a_family_that_no_table_names_is_opened(phi3: Path) -> None:
    model, outline = load(str(phi3), view=LINEAR_VIEW), open_headers(str(phi3), LINEAR_VIEW)
    units = {unit.name for unit in discover(model.tensors)}
    assert "model.layers.0.self_attn.qkv_proj" in units
    assert [tensor.name for tensor in outline.least.tensors] == [tensor.name for tensor in model.tensors]
    for tensor in model.tensors:
        weight = model.module.get_parameter(tensor.name).detach().numpy()
        assert np.array_equal(model.source.read(tensor).reshape(weight.shape), weight)
    with pytest.raises(ModelError) as caught:
        open_source(str(phi3), GGUF_VIEW)
    sentence(caught.value, "phi3")


def test_a_gguf_file_has_the_names_of_its_module(gguf_256: Path) -> None:
    model = load(str(gguf_256), view=MODULE_VIEW)
    assert "model.layers.0.self_attn.q_proj.weight" in model.pieces
    for tensor in model.tensors:
        weight = model.module.get_parameter(tensor.name).detach().numpy()
        assert np.array_equal(model.source.read(tensor).reshape(weight.shape), weight)


def test_a_model_of_which_nothing_can_be_packed_is_refused_before_its_weights_are_read(llama_96: Path, tmp_path: Path) -> None:
    saved("gpt2", tmp_path)
    for file in (*llama_96.glob("tokenizer*"), *llama_96.glob("special*")):
        shutil.copy(file, tmp_path)
    with pytest.raises(ModelError) as caught:
        open_headers(str(tmp_path), LINEAR_VIEW)
    sentence(caught.value, "gpt2", "--target native")
    assert discover(open_headers(str(tmp_path), MODULE_VIEW).least.tensors)


def test_a_line_says_which_layers_are_offered_8_bits_alone(llama_96: Path, tmp_path: Path) -> None:
    saved("falcon", tmp_path)
    for file in (*llama_96.glob("tokenizer*"), *llama_96.glob("special*")):
        shutil.copy(file, tmp_path)
    (note,) = load(str(tmp_path), view=LINEAR_VIEW).notes
    assert note.startswith("4 layers are offered 8-bit formats and floats alone, first transformer.h.0.self_attention.query_key_value.weight")
    assert not load(str(tmp_path), view=MODULE_VIEW).notes
