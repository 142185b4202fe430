"""Checkpoints in 4-bit floats are read as the weights that they stand for: NVFP4 of ModelOpt, and MXFP4 of gpt-oss as transformers loads it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor as Torch
from transformers import AutoModelForCausalLM, Mxfp4Config

from bitwright.errors import ModelError
from tests.compress import tiny_models as tiny
from tests.compress.models.checkpoints.quantized.folders import WHOLE, Coded, assert_stands_for, change, change_tensors, opened, quantized
from tests.sentences import sentence

LAYER = "model.layers.1.mlp.up_proj"
MAGNITUDES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
STACK = "model.layers.1.mlp.experts.down_proj"


def codes_of(values: Torch) -> tuple[Torch, Torch]:
    """The nearest E2M1 floats, as codes and values."""
    nearest = (values.abs().unsqueeze(-1) - MAGNITUDES).abs().argmin(-1)
    return nearest.to(torch.uint8) | ((values < 0).to(torch.uint8) << 3), MAGNITUDES[nearest] * torch.where(values < 0, -1.0, 1.0)


def coded(weight: Torch) -> Coded:
    outer = weight.abs().max() / (448 * 6)
    codes, meant = torch.zeros_like(weight, dtype=torch.uint8), torch.zeros_like(weight)
    scales = torch.zeros(len(weight), weight.shape[1] // 16, dtype=torch.float8_e4m3fn)
    for group in range(scales.shape[1]):
        columns = slice(16 * group, 16 * (group + 1))
        scales[:, group] = (weight[:, columns].abs().amax(-1) / 6 / outer).to(torch.float8_e4m3fn)
        scale = (scales[:, group].float() * outer).unsqueeze(-1)
        codes[:, columns], values = codes_of(weight[:, columns] / scale)
        meant[:, columns] = values * scale
    parts = {"weight": codes[:, ::2] | (codes[:, 1::2] << 4), "weight_scale": scales, "weight_scale_2": outer, "input_scale": torch.tensor(0.5)}
    return parts, meant.bfloat16()


def test_nvfp4_of_model_optimizer(llama_tied: Path, tmp_path: Path) -> None:
    settings = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    assert_stands_for(tmp_path / "nvfp4", quantized(llama_tied, tmp_path / "nvfp4", settings, coded))
    assert opened(tmp_path / "nvfp4").shards.quantized == "4-bit weights (modelopt)"
    change_tensors(tmp_path / "nvfp4", **{f"{LAYER}.weight_scale": torch.ones(96, 3, dtype=torch.float8_e4m3fn)})
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "nvfp4")
    sentence(caught.value, LAYER, "96×3", "96×4")


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two blocks of gpt-oss with their experts in MXFP4."""
    folder = tmp_path_factory.mktemp("gpt-oss")
    tokenizer = tiny.sentence_pieces(folder, "llama-spm")
    settings = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, "intermediate_size": 96, "sliding_window": 8}
    tiny.module("gpt_oss", settings, dtype=torch.bfloat16).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    stored = load_file(folder / WHOLE)
    for name in [name for name in stored if name.endswith("_proj") and ".experts." in name]:
        weight = stored.pop(name).float().mT  # (n_experts, n_rows, n_columns)
        groups = weight.reshape(*weight.shape[:2], -1, 32)
        exponents = (groups.abs().amax(-1) / 6).log2().ceil()
        codes, _ = codes_of(groups / exponents.exp2().unsqueeze(-1))
        stored[f"{name}_blocks"] = (codes[..., ::2] | (codes[..., 1::2] << 4)).contiguous()
        stored[f"{name}_scales"] = (exponents + 127).to(torch.uint8)
    save_file(stored, folder / WHOLE, {"format": "pt"})
    change(folder, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    return folder


def test_mxfp4_is_what_transformers_loads(gpt_oss: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(gpt_oss, quantization_config=Mxfp4Config(dequantize=True))
    shards = opened(gpt_oss).shards
    for name, weight in theirs.named_parameters():
        assert torch.equal(shards.parameter(name), weight.float()), name
    assert shards.quantized == "4-bit weights (mxfp4)"


def test_mxfp4_whose_scales_do_not_fit_is_named(gpt_oss: Path, tmp_path: Path) -> None:
    for file in gpt_oss.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    change_tensors(tmp_path, **{f"{STACK}_scales": torch.zeros(4, 64, 2, dtype=torch.uint8)})
    with pytest.raises(ModelError) as caught:
        opened(tmp_path)
    sentence(caught.value, f"{STACK}_scales")
    change_tensors(tmp_path, **{f"{STACK}_scales": None})
    with pytest.raises(ModelError) as caught:
        opened(tmp_path)
    sentence(caught.value, f"{STACK}_scales")
