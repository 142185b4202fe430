"""AWQ checkpoints in the layout gemm are read as the weights that they stand for."""

from pathlib import Path

import pytest
import torch
from torch import Tensor as Torch

from bitwright.errors import ModelError
from tests.compress.models.checkpoints.quantized.folders import Coded, assert_stands_for, change, change_tensors, opened, quantized, rounded
from tests.sentences import sentence

GROUP, LAYER = 32, "model.layers.1.mlp.up_proj"
SETTINGS = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # of the rows in a word, as AutoAWQ packs them


def words(codes: Torch) -> Torch:
    """Codes `(n, n_rows)` in words `(n, n_rows / 8)`."""
    found = torch.zeros(len(codes), codes.shape[1] // 8, dtype=torch.int64)
    for word in range(found.shape[1]):
        for place, row in enumerate(ORDER):
            found[:, word] |= codes[:, 8 * word + row].long() << (4 * place)
    return torch.where(found >= 2**31, found - 2**32, found).int()


def coded(weight: Torch) -> Coded:
    codes, scales, zeros = rounded(weight, 4, GROUP)
    meant = torch.empty(weight.shape, dtype=torch.float16)
    for i in range(weight.shape[1]):
        meant[:, i] = scales[:, i // GROUP] * (codes[:, i] - zeros[:, i // GROUP]).half()
    return {"qweight": words(codes.T), "qzeros": words(zeros.T), "scales": scales.T}, meant


def test_they_are_the_weights_that_they_stand_for(llama_tied: Path, tmp_path: Path) -> None:
    assert_stands_for(tmp_path / "awq", quantized(llama_tied, tmp_path / "awq", SETTINGS, coded))
    assert opened(tmp_path / "awq").shards.quantized == "4-bit weights (awq)"


def test_auto_round_stores_it_too(llama_tied: Path, tmp_path: Path) -> None:
    settings = {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4, "group_size": GROUP}
    assert_stands_for(tmp_path / "awq", quantized(llama_tied, tmp_path / "awq", settings, coded))


@pytest.mark.parametrize("changes", [{"version": "gemv"}, {"bits": 3}])
def test_other_layouts_are_refused(changes: dict[str, object], llama_tied: Path, tmp_path: Path) -> None:
    quantized(llama_tied, tmp_path / "awq", SETTINGS, coded)
    change(tmp_path / "awq", quantization_config=SETTINGS | changes)
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "awq")
    sentence(caught.value, *changes.values())


@pytest.mark.parametrize(
    ("role", "tensor"),
    [
        ("qzeros", None),
        ("qzeros", torch.zeros(3, 12, dtype=torch.int32)),
        ("qweight", torch.zeros(64, 11, dtype=torch.int32)),
        ("scales", torch.zeros(5, 96, dtype=torch.float16)),
        ("g_idx", torch.zeros(64, dtype=torch.int32)),
    ],
)
def test_tensors_that_do_not_fit_are_named(role: str, tensor: Torch | None, llama_tied: Path, tmp_path: Path) -> None:
    quantized(llama_tied, tmp_path / "awq", SETTINGS, coded)
    change_tensors(tmp_path / "awq", **{f"{LAYER}.{role}": tensor})
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "awq")
    sentence(caught.value, LAYER)
