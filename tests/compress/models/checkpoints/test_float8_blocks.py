"""Checkpoints in 8-bit floats with scales for blocks are read as the bfloat16 weights that they stand for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bitwright.compress import load, open_source
from bitwright.compress.models.checkpoints.float8_blocks import block_of
from bitwright.errors import ModelError
from tests.sentences import sentence

BLOCK = (40, 24)  # divides no matrix here
SETTINGS = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(BLOCK)}


def in_blocks(source: Path, folder: Path) -> tuple[Path, Path]:
    """A model with the matrices of its blocks in 8-bit floats, and the same as DeepSeek's converter would write it in bfloat16."""
    for name in ("fp8", "bf16"):
        shutil.copytree(source, folder / name)
    weights = load_file(source / "model.safetensors")
    codes, meant = dict(weights), dict(weights)
    for name, weight in weights.items():
        if weight.dim() == 2 and ".layers." in name and "gate.weight" not in name:
            codes[name], scales, meant[name] = _coded(weight.float())
            codes[f"{name}_scale_inv"] = scales
    save_file(codes, folder / "fp8" / "model.safetensors", {"format": "pt"})
    save_file(meant, folder / "bf16" / "model.safetensors", {"format": "pt"})
    change(folder / "fp8", quantization_config=SETTINGS)
    return folder / "fp8", folder / "bf16"


def _coded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n_rows, n_columns = weight.shape
    scales = torch.zeros(-(-n_rows // BLOCK[0]), -(-n_columns // BLOCK[1]))
    codes, meant = torch.zeros_like(weight, dtype=torch.float8_e4m3fn), torch.zeros_like(weight, dtype=torch.bfloat16)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            rows, columns = slice(i * BLOCK[0], (i + 1) * BLOCK[0]), slice(j * BLOCK[1], (j + 1) * BLOCK[1])
            scales[i, j] = weight[rows, columns].abs().max() / 448
            codes[rows, columns] = (weight[rows, columns] / scales[i, j]).to(torch.float8_e4m3fn)
            meant[rows, columns] = (codes[rows, columns].float() * scales[i, j]).bfloat16()
    return codes, scales, meant


def change(folder: Path, **settings: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | settings), encoding="utf-8")


@pytest.mark.parametrize("model", ["llama_gqa", "llama_tied", "tiny_mixtral"])
def test_they_are_the_model_in_bfloat16(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    coded, meant = in_blocks(request.getfixturevalue(model), tmp_path)
    lazy, loaded, expected = open_source(str(coded)), load(str(coded)), load(str(meant))
    assert lazy.fingerprint == loaded.source.fingerprint == expected.source.fingerprint
    assert lazy.fingerprint != open_source(str(request.getfixturevalue(model))).fingerprint
    for tensor in expected.tensors:
        assert np.array_equal(lazy.read(tensor), expected.source.read(tensor))
    ids = torch.tensor([[1, 17, 300, 42, 5, 260, 99, 3]])
    with torch.no_grad():
        assert torch.equal(loaded.module(ids).logits, expected.module(ids).logits)


def test_scales_must_be_there_and_fit(llama_gqa: Path, tmp_path: Path) -> None:
    coded, _ = in_blocks(llama_gqa, tmp_path)
    weights = load_file(coded / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight_scale_inv"
    save_file({key: tensor for key, tensor in weights.items() if key != name}, coded / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        open_source(str(coded))
    sentence(caught.value, name)
    save_file(weights | {name: weights[name][:1]}, coded / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        open_source(str(coded))
    sentence(caught.value, "40×24", "1×")


def test_other_checkpoints_of_codes_are_refused(llama_gqa: Path, tmp_path: Path) -> None:
    coded, _ = in_blocks(llama_gqa, tmp_path)
    assert block_of({"quant_method": "fp8"}) == (0, 0)
    change(coded, quantization_config={"quant_method": "fp8"})
    with pytest.raises(ModelError) as caught:
        load(str(coded))
    sentence(caught.value, "quantized already", "fp8")
