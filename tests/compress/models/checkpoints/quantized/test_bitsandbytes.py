"""Checkpoints of bitsandbytes are read as the weights that they stand for: 4 bits with and without double quantization, and 8 bits."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor as Torch

from bitwright.errors import ModelError
from tests.compress.models.checkpoints.quantized.folders import Coded, assert_stands_for, change_tensors, opened, quantized
from tests.sentences import sentence

pytestmark = pytest.mark.slow

BLOCK, OUTER_BLOCK, OFFSET = 64, 256, 0.125
LAYER = "model.layers.1.mlp.up_proj"
FOUR, EIGHT = {"quant_method": "bitsandbytes", "load_in_4bit": True}, {"load_in_8bit": True}
MAGNITUDES = torch.tensor([0.0, 0.1, 0.7, 1.0, 0.3, 0.5, 0.2, 0.25])
MAPS = {"nf4": torch.linspace(-1, 1, 16) ** 3, "fp4": torch.cat([MAGNITUDES, -MAGNITUDES])}
OUTER_MAP = torch.linspace(-1, 1, 256) ** 3


def state_of(shape: Any, **changes: object) -> Torch:
    text = json.dumps({"quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16", "shape": list(shape)} | changes)
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def nearest(values: Torch, of: Torch) -> Torch:
    return (values.unsqueeze(-1) - of).abs().argmin(-1)


def coded(weight: Torch, *, kind: str, twice: bool) -> Coded:
    flat, code_map = weight.reshape(-1), MAPS[kind]
    absmax = torch.stack([flat[start : start + BLOCK].abs().max() for start in range(0, len(flat), BLOCK)])
    parts: dict[str, Torch] = {"weight.quant_map": code_map}
    if twice:
        outer = (absmax - OFFSET).abs().max().reshape(1)  # fewer than 256 blocks
        inner = nearest((absmax - OFFSET) / outer, OUTER_MAP)
        absmax = OUTER_MAP[inner] * outer + OFFSET
        parts |= {"weight.absmax": inner.to(torch.uint8), "weight.nested_absmax": outer, "weight.nested_quant_map": OUTER_MAP}
    else:
        parts["weight.absmax"] = absmax
    codes, meant = torch.zeros(len(flat), dtype=torch.uint8), torch.zeros(len(flat))
    for i, start in enumerate(range(0, len(flat), BLOCK)):
        inside = slice(start, start + BLOCK)
        found = nearest(flat[inside] / absmax[i], code_map)
        codes[inside], meant[inside] = found.to(torch.uint8), code_map[found] * absmax[i]
    nested = {"nested_blocksize": OUTER_BLOCK, "nested_dtype": "float32", "nested_offset": OFFSET} if twice else {}
    parts[f"weight.quant_state.bitsandbytes__{kind}"] = state_of(weight.shape, quant_type=kind, **nested)
    parts["weight"] = ((codes[::2] << 4) | codes[1::2]).reshape(-1, 1)
    return parts, meant.reshape(weight.shape).bfloat16()


def coded_rows(weight: Torch) -> Coded:
    codes, meant = torch.zeros_like(weight, dtype=torch.int8), torch.zeros_like(weight)
    largest = weight.abs().amax(-1)
    for i in range(len(weight)):
        codes[i] = (weight[i] * 127 / largest[i]).round().to(torch.int8)
        meant[i] = codes[i] * largest[i] * 7.874015718698502e-3
    return {"weight": codes, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}, meant.bfloat16()


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("twice", [True, False])
def test_four_bits(kind: str, twice: bool, llama_tied: Path, tmp_path: Path) -> None:
    assert_stands_for(tmp_path / "bnb", quantized(llama_tied, tmp_path / "bnb", FOUR, partial(coded, kind=kind, twice=twice)))
    assert opened(tmp_path / "bnb").shards.quantized == "4-bit weights (bitsandbytes)"


def test_eight_bits(llama_tied: Path, tmp_path: Path) -> None:
    assert_stands_for(tmp_path / "bnb", quantized(llama_tied, tmp_path / "bnb", EIGHT, coded_rows))
    assert opened(tmp_path / "bnb").shards.quantized == "8-bit weights (bitsandbytes)"
    change_tensors(tmp_path / "bnb", **{f"{LAYER}.weight_format": torch.tensor(1, dtype=torch.uint8)})
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "bnb")
    sentence(caught.value, LAYER, "order of their rows")


@pytest.mark.parametrize(
    ("role", "tensor"),
    [
        ("weight.absmax", None),
        ("weight.absmax", torch.ones(95)),
        ("weight.quant_map", torch.ones(15)),
        ("weight.nested_quant_map", None),
        ("weight", torch.zeros(3071, 1, dtype=torch.uint8)),
        ("weight.quant_state.bitsandbytes__nf4", None),
        ("weight.quant_state.bitsandbytes__nf4", state_of((64, 96), nested_blocksize=OUTER_BLOCK, nested_offset=OFFSET)),  # of another matrix
        ("weight.quant_state.bitsandbytes__nf4", state_of((96, 64), blocksize=0)),
        ("weight.quant_state.bitsandbytes__nf4", state_of((96, 64), dtype="int8")),
        ("weight.quant_state.bitsandbytes__nf4", torch.tensor(list(b"[1]"), dtype=torch.uint8)),
        ("weight.quant_state.bitsandbytes__nf4", torch.tensor(list(b"[" * 4000), dtype=torch.uint8)),
        ("weight.quant_state.bitsandbytes__nf4", torch.zeros(5000, dtype=torch.uint8)),
    ],
)
def test_tensors_that_do_not_fit_are_named(role: str, tensor: Torch | None, llama_tied: Path, tmp_path: Path) -> None:
    quantized(llama_tied, tmp_path / "bnb", FOUR, partial(coded, kind="nf4", twice=True))
    change_tensors(tmp_path / "bnb", **{f"{LAYER}.{role}": tensor})
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "bnb")
    sentence(caught.value, LAYER)
