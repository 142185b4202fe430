"""GPTQ checkpoints are read as the weights that they stand for, of all widths, in both versions, with columns in any order."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor as Torch

from bitwright.compress import dtypes_of, load, open_checkpoint_files, open_source
from bitwright.errors import ModelError
from tests.compress.models.checkpoints.quantized.folders import (
    Coded,
    assert_stands_for,
    change,
    change_tensors,
    opened,
    packed,
    quantized,
    rounded,
)
from tests.sentences import sentence

pytestmark = pytest.mark.slow

GROUP = 32
LAYER = "model.layers.1.mlp.up_proj"


def coded(weight: Torch, *, bits: int, offset: int, ordered: bool) -> Coded:
    n_columns = weight.shape[1]
    order = torch.arange(n_columns) if ordered else torch.randperm(n_columns, generator=torch.Generator().manual_seed(1))
    codes, scales, zeros = rounded(weight[:, order], bits, GROUP)  # groups of columns in the order of quantization
    of_column = torch.empty(n_columns, dtype=torch.int32)
    meant, in_place = torch.empty(weight.shape, dtype=torch.float16), torch.empty_like(codes)
    for i, column in enumerate(order.tolist()):
        of_column[column] = i // GROUP
        in_place[:, column] = codes[:, i]
        meant[:, column] = scales[:, i // GROUP] * (codes[:, i] - zeros[:, i // GROUP]).half()
    parts = {"qweight": packed(in_place, bits).T, "qzeros": packed(zeros.T - offset, bits), "scales": scales.T}
    return parts | ({} if ordered else {"g_idx": of_column}), meant


def folder_of(source: Path, folder: Path, *, bits: int = 4, version: int = 1, ordered: bool = True) -> dict[str, Torch]:
    settings = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "desc_act": not ordered}
    settings |= {"checkpoint_format": "gptq_v2"} if version == 2 else {}
    return quantized(source, folder, settings, partial(coded, bits=bits, offset=2 - version, ordered=ordered))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ordered", [True, False])
def test_they_are_the_weights_that_they_stand_for(bits: int, version: int, ordered: bool, llama_tied: Path, tmp_path: Path) -> None:
    meant = folder_of(llama_tied, tmp_path / "gptq", bits=bits, version=version, ordered=ordered)
    assert_stands_for(tmp_path / "gptq", meant)
    assert opened(tmp_path / "gptq").shards.quantized == f"{bits}-bit weights (gptq)"


def test_experts_one_by_one_become_their_stack(tiny_mixtral: Path, tmp_path: Path) -> None:
    meant = folder_of(tiny_mixtral, tmp_path / "gptq", bits=4)
    shards = opened(tmp_path / "gptq").shards
    down = torch.stack([meant[f"model.layers.0.block_sparse_moe.experts.{i}.w2.weight"] for i in range(4)])
    gate_up = [[meant[f"model.layers.0.block_sparse_moe.experts.{i}.w{part}.weight"] for part in (1, 3)] for i in range(4)]
    assert torch.equal(shards.parameter("model.layers.0.mlp.experts.down_proj"), down.float())
    assert torch.equal(shards.parameter("model.layers.0.mlp.experts.gate_up_proj"), torch.stack([torch.cat(of) for of in gate_up]).float())


def test_loaded_it_is_a_float_model_and_says_what_it_was(llama_tied: Path, tmp_path: Path) -> None:
    folder_of(llama_tied, tmp_path / "gptq")
    model = load(str(tmp_path / "gptq"))
    assert model.quantized == "4-bit weights (gptq)"
    assert model.source.fingerprint == open_source(str(tmp_path / "gptq")).fingerprint
    assert not load(str(llama_tied)).quantized


def test_what_is_written_does_not_say_that_it_is_quantized(llama_tied: Path, tmp_path: Path) -> None:
    folder_of(llama_tied, tmp_path / "gptq")
    assert "quantization_config" not in open_checkpoint_files(str(tmp_path / "gptq")).config


def test_the_types_of_a_folder_are_those_that_it_stands_for(llama_tied: Path, tmp_path: Path) -> None:
    folder_of(llama_tied, tmp_path / "gptq")
    assert dtypes_of(tmp_path / "gptq") == opened(tmp_path / "gptq").shards.dtypes == {"F16", "BF16"}  # the embedding is as it was


def test_a_bias_of_zeros_that_the_layer_has_not_is_none(llama_tied: Path, tmp_path: Path) -> None:
    meant = folder_of(llama_tied, tmp_path / "gptq")
    change_tensors(tmp_path / "gptq", **{f"{LAYER}.bias": torch.zeros(96, dtype=torch.float16)})
    assert_stands_for(tmp_path / "gptq", meant)
    change_tensors(tmp_path / "gptq", **{f"{LAYER}.bias": torch.ones(96, dtype=torch.float16)})
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "gptq")
    sentence(caught.value, f"{LAYER}.bias")


@pytest.mark.parametrize(
    ("role", "tensor"),
    [
        ("qzeros", None),
        ("scales", None),
        ("scales", torch.ones(3, 96, dtype=torch.float16)),
        ("qzeros", torch.zeros(2, 13, dtype=torch.int32)),
        ("qweight", torch.zeros(8, 95, dtype=torch.int32)),
        ("qweight", torch.zeros(7, 96, dtype=torch.int32)),
        ("g_idx", torch.zeros(63, dtype=torch.int32)),
    ],
)
def test_tensors_that_do_not_fit_are_named(role: str, tensor: Torch | None, llama_tied: Path, tmp_path: Path) -> None:
    folder_of(llama_tied, tmp_path / "gptq")
    change_tensors(tmp_path / "gptq", **{f"{LAYER}.{role}": tensor})
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "gptq")
    sentence(caught.value, tmp_path / "gptq", LAYER)


def test_a_group_that_is_not_there_is_named(llama_tied: Path, tmp_path: Path) -> None:
    folder_of(llama_tied, tmp_path / "gptq", ordered=False)
    change_tensors(tmp_path / "gptq", **{f"{LAYER}.g_idx": torch.full((64,), 9, dtype=torch.int32)})
    with pytest.raises(ModelError) as caught:
        open_source(str(tmp_path / "gptq"))
    sentence(caught.value, LAYER, "group 9 of 2")


@pytest.mark.parametrize("layout", ["marlin", "bitblas"])
def test_other_layouts_are_refused(layout: str, llama_tied: Path, tmp_path: Path) -> None:
    folder_of(llama_tied, tmp_path / "gptq")
    change(tmp_path / "gptq", quantization_config={"quant_method": "gptq", "bits": 4, "checkpoint_format": layout})
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "gptq")
    sentence(caught.value, layout)
