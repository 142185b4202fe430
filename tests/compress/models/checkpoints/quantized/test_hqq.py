"""HQQ checkpoints in safetensors are read as the weights that they stand for, in every packing."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor as Torch

from bitwright.compress import open_source
from bitwright.errors import ModelError
from tests.compress.models.checkpoints.quantized.folders import Coded, assert_stands_for, change_tensors, opened, quantized
from tests.sentences import sentence

GROUP, LAYER = 64, "model.layers.1.mlp.up_proj"
SETTINGS = {"quant_method": "hqq"}
PACKINGS = {8: ("8bit_u8", 1), 4: ("4bit_u8", 2), 3: ("3bit_32", 10), 2: ("2bit_u8", 4), 1: ("1bit_u8", 8)}


def text(value: str) -> Torch:
    return torch.tensor([ord(sign) for sign in value], dtype=torch.uint8)


def coded(weight: Torch, *, bits: int, axis: int, viewed: bool = False) -> Coded:
    groups = weight.reshape(-1, GROUP) if axis == 1 else weight.reshape(GROUP, -1)
    low, high = groups.amin(axis, keepdim=True), groups.amax(axis, keepdim=True)
    scale = ((high - low) / (2**bits - 1)).bfloat16()
    zero = (-low / scale.float()).bfloat16()
    codes = (groups / scale.float() + zero.float()).round().clamp(0, 2**bits - 1).int()
    meant = ((codes.bfloat16() - zero) * scale).reshape(weight.shape)
    packing, n_in_word = PACKINGS[bits]
    n_words = -(-len(codes) // n_in_word)
    padded = torch.cat([codes, torch.zeros(n_words * n_in_word - len(codes), codes.shape[1], dtype=torch.int32)])
    words = torch.zeros(n_words, codes.shape[1], dtype=torch.int32)
    for i in range(n_in_word):
        for row in range(n_words):
            words[row] |= padded[i * n_words + row] << (bits * (n_in_word - 1 - i))
    stored = words if packing.endswith("_32") else words.to(torch.uint8)
    parts = {
        "W_q": stored.view(torch.bfloat16) if viewed else stored,
        "scale": scale,
        "zero": zero,
        "shape": torch.tensor(weight.shape),
        "axis": torch.tensor(axis, dtype=torch.int32),
        "group_size": torch.tensor(GROUP, dtype=torch.int32),
        "nbits": torch.tensor(bits, dtype=torch.int32),
        "packing": text(packing),
        "compute_dtype": text("torch.bfloat16"),
        "view_as_float": torch.tensor(int(viewed), dtype=torch.uint8),
        "quant_scale": torch.tensor(0, dtype=torch.uint8),
        "encoded_state_dict": torch.tensor(1, dtype=torch.uint8),
    }
    return parts, meant


@pytest.mark.parametrize("bits", PACKINGS)
@pytest.mark.parametrize("axis", [0, 1])
def test_they_are_the_weights_that_they_stand_for(bits: int, axis: int, llama_tied: Path, tmp_path: Path) -> None:
    assert_stands_for(tmp_path / "hqq", quantized(llama_tied, tmp_path / "hqq", SETTINGS, partial(coded, bits=bits, axis=axis)))
    assert opened(tmp_path / "hqq").shards.quantized == f"{bits}-bit weights (hqq)"


@pytest.mark.parametrize("bits", [4, 3])
def test_codes_that_are_viewed_as_floats(bits: int, llama_tied: Path, tmp_path: Path) -> None:
    assert_stands_for(tmp_path / "hqq", quantized(llama_tied, tmp_path / "hqq", SETTINGS, partial(coded, bits=bits, axis=1, viewed=True)))


@pytest.mark.parametrize(
    ("role", "tensor"),
    [
        ("scale", None),
        ("packing", text("5bit_u8")),
        ("compute_dtype", text("__import__('os')")),
        ("shape", torch.tensor([96, 64, 1])),
        ("shape", torch.zeros(1000, dtype=torch.int64)),
        ("shape", torch.tensor([96, 32])),
        ("quant_scale", torch.tensor(1, dtype=torch.uint8)),
        ("scale", torch.ones(95, 1)),
        ("W_q", torch.zeros(3, 64, dtype=torch.uint8)),
    ],
)
def test_tensors_that_do_not_fit_are_named(role: str, tensor: Torch | None, llama_tied: Path, tmp_path: Path) -> None:
    quantized(llama_tied, tmp_path / "hqq", SETTINGS, partial(coded, bits=4, axis=1))
    change_tensors(tmp_path / "hqq", **{f"{LAYER}.{role}": tensor})
    with pytest.raises(ModelError) as caught:
        open_source(str(tmp_path / "hqq"))
    sentence(caught.value, LAYER)
