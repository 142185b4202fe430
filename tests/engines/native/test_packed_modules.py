"""Packed layers beside torch's own with the same weights."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import embedding, linear

from bitwright.compress import integer_codec
from bitwright.engines.native import packed_modules
from bitwright.engines.native.packed_modules import (
    AssembledLinear,
    Block,
    PackedEmbedding,
    PackedLinear,
    PackedMatrix,
    PackedStack,
    WidenedLinear,
    footprint_bytes,
)
from bitwright.engines.no_engine import INTEGERS
from bitwright.testing.codec_contract import normal

FORM, SHAPE = INTEGERS.format("INT4_G32"), (40, 64)


def filled(matrix: PackedMatrix, seed: int = 0) -> torch.Tensor:
    """Give a matrix normal weights: what they decode to."""
    weights = normal(*matrix.shape) * np.float32(1 + seed)
    packed = integer_codec().encode(weights, matrix.form, np.empty((0, matrix.shape[1]), dtype=np.float32))
    with torch.no_grad():
        matrix.weight.copy_(torch.from_numpy(packed))
    return torch.from_numpy(integer_codec().decode(packed, matrix.form, matrix.shape))


@pytest.mark.parametrize("at_once", [1, 64 * 7, 1 << 20])
@pytest.mark.parametrize("biased", [True, False])
def test_a_linear_layer_is_that_of_its_weights(at_once: int, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_modules, "_EXPANDED_ON_CPU", at_once)
    layer = PackedLinear(FORM, SHAPE, nn.Parameter(torch.arange(40.0)) if biased else None)
    weights, x = filled(layer), torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(layer(x), linear(x, weights, layer.bias), atol=1e-4)
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_no_more_rows_are_expanded_at_once_than_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_modules, "_EXPANDED_ON_CPU", 64 * 7)
    parts = [*PackedLinear(FORM, SHAPE, None).parts()]
    assert [range(40)[part] for part in parts] == [range(start, min(start + 7, 40)) for start in range(0, 40, 7)]


def test_an_embedding_expands_the_rows_of_its_tokens() -> None:
    layer = PackedEmbedding(FORM, SHAPE, scale=8.0, dtype=torch.float32)
    weights, ids = filled(layer), torch.tensor([[3, 3, 39], [0, 1, 2]])
    assert torch.equal(layer(ids), embedding(ids, weights) * 8)


@pytest.mark.parametrize("name", ["INT2_G64", "INT3_G32", "INT4_G64", "INT7_G32", "INT8_ROW", "BF16"])
def test_all_is_done_on_the_device_of_the_weights(name: str) -> None:
    """Tensors on `meta` have no values to be looked at and do not mix with those of a CPU."""
    form = INTEGERS.format(name)
    matrix, table = PackedMatrix(form, (64, 64)), PackedEmbedding(form, SHAPE, scale=8.0, dtype=torch.bfloat16)
    hidden = table.to("meta")(torch.zeros(2, 3, dtype=torch.int64, device="meta"))
    assert (hidden.device.type, hidden.dtype) == ("meta", torch.bfloat16)
    block = Block(matrix.to("meta"), (0, 64), (0, 64))
    assert AssembledLinear([block], (64, 64), None)(hidden).shape == (2, 3, 64)
    assert PackedStack([[block]], (64, 64), transposed=True, dtype=torch.bfloat16)[0].device.type == "meta"


def test_floats_are_kept_in_their_type() -> None:
    layer = PackedLinear(INTEGERS.format("BF16"), SHAPE, None)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(normal(*SHAPE)))
    x = torch.ones(1, 64)
    assert layer.weight.dtype == torch.bfloat16
    assert torch.equal(layer(x), linear(x, layer.weight.float()))


def blocks_of(n: int) -> tuple[list[Block], torch.Tensor]:
    """Matrices of 40 rows below one another, and what they decode to."""
    matrices = [PackedMatrix(FORM, SHAPE) for _ in range(n)]
    weights = torch.cat([filled(matrix, seed) for seed, matrix in enumerate(matrices)])
    return [Block(matrix, (40 * i, 40 * (i + 1)), (0, 64)) for i, matrix in enumerate(matrices)], weights


@pytest.mark.parametrize("transposed", [False, True])
def test_a_stack_gives_the_matrix_of_an_expert(transposed: bool) -> None:
    blocks, weights = blocks_of(2)
    stack = PackedStack([blocks, [], blocks[1:]], (80, 64), transposed=transposed, dtype=torch.float32)
    expected = weights.mT if transposed else weights
    assert len(stack) == 3
    assert torch.equal(stack[0], expected)
    assert torch.equal(stack[torch.tensor(0)], expected)
    assert not stack[1].any()
    last = stack[2].mT if transposed else stack[2]
    assert torch.equal(last[40:], weights[40:])
    assert not last[:40].any()
    assert torch.equal(stack[torch.tensor([2, 0])], torch.stack([stack[2], stack[0]]))
    x = torch.randn(3, 5, 80 if transposed is False else 64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(torch.bmm(x, stack), torch.bmm(x, stack[:]))


def test_what_is_shared_is_counted_once() -> None:
    first, second = PackedLinear(FORM, SHAPE, None), PackedLinear(FORM, SHAPE, None)
    assert footprint_bytes(nn.ModuleList([first, second])) == 2 * FORM.size_bytes(SHAPE)
    second.weight = first.weight
    assert footprint_bytes(nn.ModuleList([first, second])) == FORM.size_bytes(SHAPE)


def test_a_mask_that_is_not_saved_is_not_counted() -> None:
    layer = nn.Module()
    layer.register_buffer("mask", torch.ones(64, dtype=torch.bool), persistent=False)
    layer.register_buffer("scale", torch.ones(2))
    assert footprint_bytes(layer) == 8


def test_parts_of_a_layer_are_put_where_they_belong() -> None:
    blocks, weights = blocks_of(2)
    x, bias = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1)), nn.Parameter(torch.arange(80.0))
    assert torch.allclose(AssembledLinear(blocks, (80, 64), bias)(x), linear(x, weights, bias), atol=1e-4)
    assert torch.allclose(AssembledLinear(blocks[1:], (80, 64), None)(x)[..., 40:], linear(x, weights[40:]), atol=1e-4)
    assert not AssembledLinear(blocks[1:], (80, 64), None)(x)[..., :40].any()
    across = [Block(blocks[0].matrix, (0, 40), (0, 64)), Block(blocks[1].matrix, (0, 40), (64, 128))]
    wide = torch.randn(3, 128, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(AssembledLinear(across, (40, 128), None)(wide), linear(wide, torch.cat([weights[:40], weights[40:]], dim=1)), atol=1e-4)


def test_a_layer_of_narrow_floats_is_wide_to_whoever_reads_it_and_narrow_in_memory() -> None:
    layer = WidenedLinear(INTEGERS.format("BF16"), nn.Linear(4, 5, bias=False), dtype=torch.float32)
    layer.weight = nn.Parameter(torch.arange(20.0).reshape(5, 4).to(torch.bfloat16), requires_grad=False)  # type: ignore[misc]
    x = torch.ones(4)
    assert torch.equal(layer.weight @ x, layer(x))
    assert layer.weight.dtype == torch.float32
    assert layer.state_dict()["weight"].dtype == torch.bfloat16
    assert footprint_bytes(layer) == 40


class Doubling(nn.Linear):
    """Computes something else than a product: twice it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x @ self.weight.T + self.bias


def test_a_layer_of_narrow_floats_computes_what_its_class_does() -> None:
    original = Doubling(4, 5)
    layer = WidenedLinear(INTEGERS.format("BF16"), original, dtype=torch.float32)
    layer.weight = nn.Parameter(torch.arange(20.0).reshape(5, 4).to(torch.bfloat16), requires_grad=False)  # type: ignore[misc]
    x = torch.ones(4)
    assert torch.equal(layer(x), 2 * (layer.weight @ x) + original.bias)
    assert set(layer.state_dict()) == {"weight", "bias"}
