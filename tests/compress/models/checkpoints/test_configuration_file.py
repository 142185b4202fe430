"""The configuration of a folder: its counts are held to what models have before anything is made of them."""

import json
from pathlib import Path

import pytest

from bitwright.compress import CONFIG, INDEX, open_source, quantization_of, read_configuration
from bitwright.compress.models.checkpoints.checkpoint_shards import weight_map
from bitwright.errors import ModelError
from tests.sentences import sentence


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**23),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 0),
        ("hidden_size", "64"),
        ("vocab_size", 1.5),
        ("num_experts", 10**9),
        ("sliding_window", 10**30),
    ],
)
def test_counts_that_no_model_has_are_named(key: str, value: object, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"model_type": "llama", key: value}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        open_source(str(tmp_path))
    sentence(caught.value, tmp_path, key)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', "[" * 10_000, "9" * 10_000, '{"quantization_config": [1]}'])
def test_what_is_no_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        quantization_of(tmp_path)
    sentence(caught.value, tmp_path)


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    assert quantization_of(tmp_path) == {}
    with pytest.raises(ModelError) as caught:
        read_configuration(tmp_path)
    sentence(caught.value, tmp_path, CONFIG)


@pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "sub/model.safetensors", "model.bin", "", 1, None, ["a"]])
def test_shards_lie_in_the_folder_of_their_index(name: object, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        weight_map(tmp_path)
    sentence(caught.value, tmp_path / INDEX)
