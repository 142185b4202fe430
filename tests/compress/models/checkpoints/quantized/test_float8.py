"""Checkpoints in 8-bit floats are read as the weights that they stand for, with scales for blocks, rows and whole tensors."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor as Torch
from transformers import AutoModelForCausalLM

from bitwright.compress import entries, load, open_source
from bitwright.compress.models.checkpoints.quantized.float8 import float8_weights
from bitwright.errors import ModelError
from tests.compress.models.checkpoints.quantized.folders import WHOLE, Coded, assert_stands_for, change, change_tensors, opened, quantized
from tests.sentences import sentence

BLOCK = (40, 24)  # divides no matrix here
SETTINGS = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
LAYER = "model.layers.0.mlp.up_proj"


def coded(weight: Torch, *, block: Callable[[Torch], tuple[int, int]], scale: str, flat: bool = False) -> Coded:
    n_rows, n_columns = block(weight)
    scales = torch.zeros(-(-weight.shape[0] // n_rows), -(-weight.shape[1] // n_columns))
    codes, meant = torch.zeros_like(weight, dtype=torch.float8_e4m3fn), torch.zeros_like(weight, dtype=torch.bfloat16)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            rows, columns = slice(i * n_rows, (i + 1) * n_rows), slice(j * n_columns, (j + 1) * n_columns)
            scales[i, j] = weight[rows, columns].abs().max() / 448
            codes[rows, columns] = (weight[rows, columns] / scales[i, j]).to(torch.float8_e4m3fn)
            meant[rows, columns] = (codes[rows, columns].float() * scales[i, j]).bfloat16()
    return {"weight": codes, scale: scales.reshape(()) if flat else scales}, meant


def in_blocks(source: Path, folder: Path, block: tuple[int, int] = BLOCK) -> tuple[Path, Path]:
    """A model with the matrices of its blocks in 8-bit floats, and the same as DeepSeek's converter would write it in bfloat16."""
    settings = SETTINGS | {"weight_block_size": list(block)}
    meant = quantized(source, folder / "fp8", settings, partial(coded, block=lambda _: block, scale="weight_scale_inv"))
    shutil.copytree(source, folder / "bf16")
    save_file(meant, folder / "bf16" / WHOLE, {"format": "pt"})
    return folder / "fp8", folder / "bf16"


@pytest.mark.parametrize("model", ["llama_gqa", "llama_tied", "tiny_mixtral"])
def test_they_are_the_model_in_bfloat16(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder, meant = in_blocks(request.getfixturevalue(model), tmp_path)
    lazy, loaded, expected = open_source(str(folder)), load(str(folder)), load(str(meant))
    assert lazy.fingerprint == loaded.source.fingerprint == expected.source.fingerprint
    assert lazy.fingerprint != open_source(str(request.getfixturevalue(model))).fingerprint
    for tensor in expected.tensors:
        assert np.array_equal(lazy.read(tensor), expected.source.read(tensor))
    ids = torch.tensor([[1, 17, 300, 42, 5, 260, 99, 3]])
    with torch.no_grad():
        assert torch.equal(loaded.module(ids).logits, expected.module(ids).logits)


@pytest.mark.parametrize("model", ["llama_tied", "tiny_mixtral"])
def test_they_are_what_transformers_loads(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder, _ = in_blocks(request.getfixturevalue(model), tmp_path, block=(16, 32))
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    for name, weight in theirs.named_parameters():
        assert torch.equal(opened(folder).shards.parameter(name), weight.float()), name


@pytest.mark.parametrize(
    ("settings", "block", "flat"),
    [
        ({"quant_method": "fbgemm_fp8"}, lambda weight: (1, weight.shape[1]), False),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, lambda weight: tuple(weight.shape), True),
        ({"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}, lambda _: (16, 32), False),
    ],
)
def test_scales_of_rows_and_tensors(
    settings: dict[str, object], block: Callable[[Torch], tuple[int, int]], flat: bool, llama_tied: Path, tmp_path: Path
) -> None:
    meant = quantized(llama_tied, tmp_path / "fp8", settings, partial(coded, block=block, scale="weight_scale", flat=flat))
    change_tensors(tmp_path / "fp8", **{f"{LAYER}.input_scale": torch.tensor(0.5)})  # of activations, which are floats here
    assert_stands_for(tmp_path / "fp8", meant)


def test_the_file_of_model_optimizer_alone_says_it(llama_tied: Path, tmp_path: Path) -> None:
    meant = quantized(llama_tied, tmp_path / "fp8", {}, partial(coded, block=lambda weight: tuple(weight.shape), scale="weight_scale", flat=True))
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "fp8")
    sentence(caught.value, "weight_scale")
    (tmp_path / "fp8" / "hf_quant_config.json").write_text('{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}')
    assert_stands_for(tmp_path / "fp8", meant)
    (tmp_path / "fp8" / "hf_quant_config.json").write_text('{"quantization": []}')
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "fp8")
    sentence(caught.value, "hf_quant_config.json", "quant_algo")
    (tmp_path / "fp8" / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "W4A8_AWQ"}}')
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "fp8")
    sentence(caught.value, "W4A8_AWQ")


def test_scales_must_be_there_and_fit(llama_gqa: Path, tmp_path: Path) -> None:
    folder, _ = in_blocks(llama_gqa, tmp_path)
    weights = load_file(folder / WHOLE)
    name = "model.layers.0.mlp.up_proj.weight_scale_inv"
    change_tensors(folder, **{name: None})
    with pytest.raises(ModelError) as caught:
        open_source(str(folder))
    sentence(caught.value, name)
    change_tensors(folder, **{name: weights[name][:1]})
    with pytest.raises(ModelError) as caught:
        open_source(str(folder))
    sentence(caught.value, "40×24", "1×")


@pytest.mark.parametrize("block", [0.5, [128], [128, 0], "128"])
def test_a_block_must_be_two_numbers(block: object, llama_gqa: Path, tmp_path: Path) -> None:
    folder, _ = in_blocks(llama_gqa, tmp_path)
    change(folder, quantization_config=SETTINGS | {"weight_block_size": block})
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    sentence(caught.value, "weight_block_size")


def test_methods_that_nobody_reads_here_are_refused(llama_gqa: Path, tmp_path: Path) -> None:
    folder, _ = in_blocks(llama_gqa, tmp_path)
    for settings, named in (({"quant_method": "aqlm"}, "aqlm"), ({"bits": 4}, "does not name")):
        change(folder, quantization_config=settings)
        with pytest.raises(ModelError) as caught:
            load(str(folder))
        sentence(caught.value, "quantized already", named)


@pytest.mark.parametrize(("shape", "fits"), [((3,), True), ((3, 1, 1), True), ((3, 4), True), ((), False), ((2, 4), False), ((1,), False)])
def test_a_stack_has_scales_for_each_expert(shape: tuple[int, ...], fits: bool, tmp_path: Path) -> None:
    codes, scale = torch.randn(3, 4, 6).to(torch.float8_e4m3fn), torch.rand(shape)
    save_file({"experts.w": codes, "experts.w_scale": scale}, tmp_path / WHOLE)
    stored = entries(tmp_path / WHOLE)
    if not fits:
        with pytest.raises(ModelError) as caught:
            list(float8_weights({}, stored, "F32"))
        sentence(caught.value, "experts.w")
        return
    (weight,) = float8_weights({}, stored, "F32")
    expected = codes.float() * scale.reshape(3, -1, 1)
    assert torch.equal(weight.rows(0, 12), expected.reshape(12, 6))
