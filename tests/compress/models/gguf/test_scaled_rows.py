"""Matrices of a file that are multiples of the module's are found with their constants, and nothing else is taken for a multiple."""

import pytest
import torch
from torch import Tensor as Torch

from bitwright.compress.models.gguf.row_matching import bind_by_rows
from bitwright.compress.models.gguf.scaled_rows import scaled_pieces
from bitwright.spaces import Tensor
from tests.compress.models.gguf.test_row_matching import Weights, randn

_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.mark.parametrize("stored", _TYPES)
def test_runs_of_rows_have_a_constant_each(stored: str) -> None:
    own = randn(12, 32)
    factors = torch.tensor([0.7] * 5 + [1.2] * 3 + [0.9] * 4)[:, None]
    rows = (own * factors).to(_TYPES[stored]).float()
    found = scaled_pieces(Tensor("blk.1.in.weight", (12, 32), stored), rows, {"layers.1.in_proj.weight": own}, hint="")
    assert [piece.rows for piece in found] == [range(5), range(5, 8), range(8, 12)]
    assert [piece.scale for piece in found] == pytest.approx([0.7, 1.2, 0.9], rel=1e-3 if stored == "BF16" else 1e-4)


def test_experts_of_a_stack_have_a_constant_each() -> None:
    own = randn(3, 4, 16)
    rows = (own * torch.tensor([0.5, 2.0, 3.0])[:, None, None]).reshape(-1, 16)
    found = scaled_pieces(Tensor("blk.0.up_exps.weight", (3, 4, 16), "F32"), rows, {"layers.0.up": own}, hint="")
    assert [(piece.expert, piece.rows) for piece in found] == [(expert, range(4)) for expert in range(3)]
    assert [piece.scale for piece in found] == pytest.approx([0.5, 2.0, 3.0])


@pytest.mark.parametrize("spoiled", ["one weight", "negative", "a row of zeros", "quantized", "another block"])
def test_what_is_no_multiple_is_not_found(spoiled: str) -> None:
    own, tensor = randn(6, 16), Tensor("blk.0.in.weight", (6, 16), "Q8_0" if spoiled == "quantized" else "F32")
    rows = own * (-2 if spoiled == "negative" else 2)
    if spoiled == "one weight":
        rows[3, 5] += 0.001
    if spoiled == "a row of zeros":
        own[2] = rows[2] = 0
    name = "layers.1.in_proj.weight" if spoiled == "another block" else "layers.0.in_proj.weight"
    assert scaled_pieces(tensor, rows, {name: own}, hint="") == ()


def test_the_hinted_of_equal_parameters_is_meant() -> None:
    own = randn(4, 8)
    tensor, parameters = Tensor("blk.0.b.weight", (4, 8), "F32"), {"layers.0.a": own, "layers.0.b": own.clone()}
    assert {piece.parameter for piece in scaled_pieces(tensor, own * 3, parameters, hint="layers.0.b")} == {"layers.0.b"}


def bound(parameters: dict[str, Torch], weights: dict[str, Torch]) -> tuple[dict[str, list[float]], list[str], list[str]]:
    found = bind_by_rows(Weights(weights), parameters, {})
    scales = {name: [piece.scale for piece in pieces] for name, pieces in found.pieces.items()}
    return scales, [tensor.name for tensor in found.copies], [tensor.name for tensor in found.unfound]


def test_a_file_is_bound_to_multiples_after_all_that_is_equal() -> None:
    """The head and the embedding are one parameter: the second multiple of it stays as it is, as a copy."""
    own, other = randn(5, 8), randn(7, 8)
    parameters = {"embed": own, "layers.0.k": other}
    scales, copies, unfound = bound(parameters, {"token_embd": own * 2, "blk.0.k": other, "output": own * 0.8})
    assert scales["blk.0.k"] == [1.0]
    assert scales["token_embd"] == pytest.approx([2.0])
    assert copies == ["output"]
    assert unfound == []
