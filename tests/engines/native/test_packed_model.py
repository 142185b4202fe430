"""Layers that are packed, and what a checkpoint may lack or say wrongly of its model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from bitwright.compress import StoredTensor, entries, module_tensors, weights_of
from bitwright.engines.native.packed_model import pack, tied_layers
from bitwright.engines.native.packed_modules import PackedEmbedding, PackedLinear, PackedStack
from bitwright.errors import ModelError
from bitwright.spaces import Format
from tests.compress import tiny_models as tiny
from tests.compress.native_folders import write_native
from tests.sentences import sentence


def skeleton(family: str) -> nn.Module:
    model_type, settings, _ = tiny.FAMILIES[family]
    return tiny.module(model_type, settings, dtype=torch.float32)


@pytest.fixture
def mixtral(tmp_path: Path) -> tuple[nn.Module, dict[str, Format], dict[str, StoredTensor]]:
    made = write_native(skeleton("mixtral"), tmp_path)
    return skeleton("mixtral"), dict(made.layers), entries(tmp_path / "model.safetensors")


def test_every_matrix_is_replaced(mixtral: tuple[nn.Module, dict[str, Format], dict[str, StoredTensor]]) -> None:
    module, formats, found = mixtral
    pack(module, formats, found, dtype=torch.float32)
    kinds = {type(layer) for layer in module.modules()}
    assert {PackedLinear, PackedEmbedding, PackedStack} <= kinds
    assert not {nn.Linear, nn.Embedding} & kinds


def test_floats_as_wide_as_those_computed_with_stay_ordinary_layers(mixtral: tuple[nn.Module, dict[str, Format], dict[str, StoredTensor]]) -> None:
    module, formats, found = mixtral
    pack(module, formats, found, dtype=torch.bfloat16)
    assert sum(type(layer) is nn.Linear for layer in module.modules()) == sum(
        entry.dtype == "BF16" and "experts" not in name for name, entry in found.items()
    )


def test_an_expert_that_is_missing_is_named(mixtral: tuple[nn.Module, dict[str, Format], dict[str, StoredTensor]]) -> None:
    module, formats, found = mixtral
    name = "model.layers.1.mlp.experts.2.up_proj"
    del formats[name]
    with pytest.raises(ModelError) as caught:
        pack(module, formats, {key: entry for key, entry in found.items() if key != f"{name}.weight"}, dtype=torch.float32)
    sentence(caught.value, name)


def test_a_norm_that_is_missing_is_named(mixtral: tuple[nn.Module, dict[str, Format], dict[str, StoredTensor]]) -> None:
    module, formats, found = mixtral
    del found["model.norm.weight"]
    with pytest.raises(ModelError) as caught:
        pack(module, formats, found, dtype=torch.float32)
    sentence(caught.value, "model.norm.weight")


def test_a_matrix_that_the_module_has_transposed_is_read_as_it_lies_in_wide_floats_too(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=32)
    module = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    _, pieces = module_tensors(module, apart=False)
    turned = {of_tensor[0].parameter for of_tensor in pieces.values() if of_tensor[0].transposed}
    on_disk = {name: (weight.T if name in turned else weight).detach().clone().contiguous() for name, weight in weights_of(module).items()}
    save_file(on_disk, tmp_path / "model.safetensors")
    pack(module, {}, entries(tmp_path / "model.safetensors"), dtype=torch.bfloat16)
    layer = module.get_submodule("transformer.h.0.mlp.c_fc")
    assert isinstance(layer, PackedLinear)
    assert layer.shape == on_disk["transformer.h.0.mlp.c_fc.weight"].shape == (128, 32)


def test_ties_are_known() -> None:
    assert tied_layers(skeleton("llama-tied")) == {"lm_head": "model.embed_tokens"}
    assert tied_layers(skeleton("llama-untied")) == {}
