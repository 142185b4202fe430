"""Checkpoints of compressed-tensors are read as transformers loads them, whatever their format and strategy."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import load_file, save_file
from torch import Tensor as Torch
from transformers import AutoModelForCausalLM

from bitwright.errors import ModelError
from tests.compress.models.checkpoints.quantized.folders import WHOLE, change, change_tensors, opened
from tests.sentences import sentence

LAYER = "model.layers.1.mlp.up_proj"
IDS = torch.tensor([[1, 17, 300, 42, 5, 260, 99, 3]])


def weights(bits: int, *, kind: str = "int", symmetric: bool = True, strategy: str = "group", group: int | None = 32) -> dict[str, Any]:
    return {"num_bits": bits, "type": kind, "symmetric": symmetric, "strategy": strategy, "group_size": group if "group" in strategy else None}


def scales_of(weight: Torch, about: dict[str, Any]) -> dict[str, Torch]:
    """Scales of groups, rows or the whole, in bfloat16; zeros for asymmetric codes; and a scale of the scales for NVFP4."""
    shape = {"group": (len(weight), -1, about["group_size"] or 1), "tensor_group": (len(weight), -1, 16)}.get(about["strategy"], (len(weight), 1, -1))
    groups = weight.reshape(shape)
    if about["strategy"] == "tensor":
        groups = weight.reshape(1, -1)
    largest = groups.abs().amax(-1)
    if about["strategy"] == "tensor_group":
        outer = 448 * 6 / weight.abs().max()
        return {"weight_scale": (largest * outer / 6).to(torch.float8_e4m3fn).float(), "weight_global_scale": outer.reshape(1)}
    if about["type"] == "float":
        return {"weight_scale": (largest / 448).bfloat16().float()}
    if about["symmetric"]:
        return {"weight_scale": (largest / (2 ** (about["num_bits"] - 1) - 0.5)).bfloat16().float()}
    scale = ((groups.amax(-1) - groups.amin(-1)) / (2 ** about["num_bits"] - 1)).bfloat16().float()
    zero = (-groups.amin(-1) / scale).round() - 2 ** (about["num_bits"] - 1)
    return {"weight_scale": scale, "weight_zero_point": zero.to(torch.int8)}


def written(source: Path, folder: Path, form: str, *groups: tuple[str, dict[str, Any]]) -> Path:
    """A model compressed by the package, its matrices in the first of `groups` that has a part of their names."""
    shutil.copytree(source, folder)
    stored = load_file(source / WHOLE)
    inputs = {"num_bits": 8, "type": "int", "dynamic": True, "strategy": "token"} if form == "int-quantized" else None
    schemes = {f"group_{i}": {"targets": [target], "weights": about, "input_activations": inputs} for i, (target, about) in enumerate(groups)}
    for name, weight in list(stored.items()):
        if weight.dim() == 2 and ".layers." in name and "gate.weight" not in name:
            layer = name.removesuffix(".weight")
            i = next(i for i, (target, _) in enumerate(groups) if target == "Linear" or target.removeprefix("re:.*") in layer)
            state = {"weight": weight.float(), **scales_of(weight.float(), groups[i][1])}
            made = BaseCompressor.get_value_from_registry(form).compress(state, QuantizationScheme.model_validate(schemes[f"group_{i}"]))
            del stored[name]
            is_wide = {"weight_scale": form != "nvfp4-pack-quantized"}
            stored |= {f"{layer}.{role}": (part.bfloat16() if is_wide.get(role) else part).contiguous() for role, part in made.items()}
    save_file(stored, folder / WHOLE, {"format": "pt"})
    settings = {"quant_method": "compressed-tensors", "format": form, "config_groups": schemes, "quantization_status": "compressed"}
    change(folder, quantization_config=settings | {"ignore": ["lm_head"]})
    return folder


def assert_as_transformers(folder: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        theirs(IDS)  # the first pass unpacks
    shards = opened(folder).shards
    for name, weight in theirs.named_parameters():
        if weight.is_floating_point() and not name.endswith(("scale", "zero_point")):
            assert torch.equal(shards.parameter(name), weight.float()), name


@pytest.mark.parametrize(
    ("form", "about"),
    [
        ("pack-quantized", weights(4)),
        ("pack-quantized", weights(3)),
        ("pack-quantized", weights(8, strategy="channel")),
        ("int-quantized", weights(8, strategy="channel")),
        ("int-quantized", weights(8, strategy="tensor")),
        ("float-quantized", weights(8, kind="float", strategy="channel")),
        ("float-quantized", weights(8, kind="float", strategy="tensor")),
        ("nvfp4-pack-quantized", weights(4, kind="float", strategy="tensor_group", group=16)),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_they_are_what_transformers_loads(form: str, about: dict[str, Any], llama_tied: Path, tmp_path: Path) -> None:
    folder = written(llama_tied, tmp_path / "packed", form, ("Linear", about))
    assert_as_transformers(folder)
    assert opened(folder).shards.quantized == f"{about['num_bits']}-bit weights (compressed-tensors)"


@pytest.mark.parametrize("strategy", ["group", "channel"])
def test_asymmetric_codes_are_read_which_transformers_does_not_load(strategy: str, llama_tied: Path, tmp_path: Path) -> None:
    about = weights(4, symmetric=False, strategy=strategy)
    folder = written(llama_tied, tmp_path / "packed", "pack-quantized", ("Linear", about))
    weight = load_file(llama_tied / WHOLE)[f"{LAYER}.weight"].float()
    n_columns = about["group_size"] or weight.shape[1]
    found, expected = opened(folder).shards.parameter(f"{LAYER}.weight"), torch.zeros_like(weight)
    scales = scales_of(weight, about)
    for i in range(weight.shape[1]):
        scale, zero = scales["weight_scale"][:, i // n_columns], scales["weight_zero_point"][:, i // n_columns].float()
        expected[:, i] = ((((weight[:, i] / scale) + zero).round().clamp(-8, 7) - zero) * scale).bfloat16().float()
    assert torch.equal(found, expected)


def test_experts_are_what_transformers_loads(tiny_mixtral: Path, tmp_path: Path) -> None:
    folder = written(tiny_mixtral, tmp_path / "packed", "pack-quantized", ("Linear", weights(4)))
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        theirs(IDS)
    name = "model.layers.1.mlp.experts.down_proj"
    assert torch.equal(opened(folder).shards.parameter(name), theirs.get_parameter(name).float())


def test_groups_are_found_by_name_before_class(llama_tied: Path, tmp_path: Path) -> None:
    groups = (("re:.*mlp", weights(8)), ("Linear", weights(4)))
    folder = written(llama_tied, tmp_path / "packed", "pack-quantized", *groups)
    assert_as_transformers(folder)
    assert opened(folder).shards.quantized == "4- to 8-bit weights (compressed-tensors)"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config_groups": None}, "config_groups"),
        ({"config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": "four"}}}}, "num_bits"),
        ({"config_groups": {"group_0": {"targets": ["re:.*mlp.*"], "weights": weights(4)}}}, "self_attn"),
        ({"config_groups": {"group_0": {"targets": ["re:.*(mlp"], "weights": weights(4)}}}, "regular expressions"),
        ({"format": "marlin-24"}, "marlin-24"),
        ({"sparsity_config": {"format": "sparse-bitmask"}}, "sparse"),
        ({"transform_config": {"config_groups": {"u": {}}}}, "rotated"),
    ],
)
def test_configurations_that_cannot_be_followed_are_named(changes: dict[str, Any], named: str, llama_tied: Path, tmp_path: Path) -> None:
    folder = written(llama_tied, tmp_path / "packed", "pack-quantized", ("Linear", weights(4)))
    groups = {"g": {"targets": ["Linear"], "weights": weights(4)}}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    change(folder, quantization_config=settings | changes)
    with pytest.raises(ModelError) as caught:
        opened(folder)
    sentence(caught.value, named)


@pytest.mark.parametrize(
    ("role", "tensor"),
    [
        ("weight_shape", None),
        ("weight_shape", torch.tensor([96, 63])),
        ("weight_packed", None),
        ("weight_packed", torch.zeros(96, 7, dtype=torch.int32)),
        ("weight_scale", None),
        ("weight_g_idx", torch.zeros(64, dtype=torch.int32)),
    ],
)
def test_tensors_that_do_not_fit_are_named(role: str, tensor: Torch | None, llama_tied: Path, tmp_path: Path) -> None:
    folder = written(llama_tied, tmp_path / "packed", "pack-quantized", ("Linear", weights(4)))
    change_tensors(folder, **{f"{LAYER}.{role}": tensor})
    with pytest.raises(ModelError) as caught:
        opened(folder)
    sentence(caught.value, LAYER)
