"""Weights read from a folder's shards are those of the module that transformers loads from it, in either layout of experts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bitwright.compress import load, open_source
from bitwright.errors import ModelError
from tests.sentences import sentence


def sharded(source: Path, folder: Path, rename: dict[str, str]) -> Path:
    """A copy in two shards, with parts of names replaced."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for old, new in rename.items():
        weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
    names, where = sorted(weights), {}
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in part}, folder / f"model-{i}.safetensors", {"format": "pt"})
        where |= dict.fromkeys(part, f"model-{i}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def same(left: Path, right: Path) -> None:
    lazy, loaded = open_source(str(left)), load(str(right)).source
    assert lazy.fingerprint == loaded.fingerprint
    assert lazy.tensors == loaded.tensors
    for tensor in lazy.tensors:
        assert np.array_equal(lazy.read(tensor), loaded.read(tensor))
        assert np.array_equal(lazy.stored(tensor), loaded.stored(tensor))


@pytest.mark.parametrize("model", ["llama_gqa", "llama_tied", "tiny_mixtral"])
def test_shards_hold_what_the_module_holds(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(model)
    same(folder, folder)
    same(sharded(folder, tmp_path / "shards", {}), folder)


def test_stacked_experts_are_read_as_well_as_single_ones(tiny_mixtral: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_mixtral, tmp_path / "stacked")
    weights = AutoModelForCausalLM.from_pretrained(tiny_mixtral, dtype="auto").state_dict()
    assert any(name.endswith("experts.gate_up_proj") for name in weights)
    save_file({name: tensor.clone() for name, tensor in weights.items()}, tmp_path / "stacked" / "model.safetensors", {"format": "pt"})
    same(tmp_path / "stacked", tiny_mixtral)


def test_a_missing_shard_is_named(tiny_mixtral: Path, tmp_path: Path) -> None:
    folder = sharded(tiny_mixtral, tmp_path / "shards", {})
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        open_source(str(folder))
    sentence(caught.value, "lacks 1 of 2", "model-1.safetensors")


def test_a_shard_that_was_cut_off_is_named(tiny_mixtral: Path, tmp_path: Path) -> None:
    folder = sharded(tiny_mixtral, tmp_path / "shards", {})
    with (folder / "model-1.safetensors").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(ModelError) as caught:
        open_source(str(folder))
    sentence(caught.value, "model-1.safetensors", "bytes")


def test_a_missing_expert_is_named(tiny_mixtral: Path, tmp_path: Path) -> None:
    folder = sharded(tiny_mixtral, tmp_path / "shards", {"layers.1.block_sparse_moe.experts.2.w1": "layers.1.elsewhere"})
    with pytest.raises(ModelError) as caught:
        open_source(str(folder))
    sentence(caught.value, "model.layers.1.mlp.experts.gate_up_proj")


def test_integers_are_refused(llama_gqa: Path, tmp_path: Path) -> None:
    shutil.copytree(llama_gqa, tmp_path / "bytes")
    weights = load_file(tmp_path / "bytes" / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].char()
    save_file(weights, tmp_path / "bytes" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        open_source(str(tmp_path / "bytes"))
    sentence(caught.value, "I8", "bfloat16")
