"""Packed layers beside torch's own with the same weights."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import embedding, linear

from bitwright.compress import integer_codec
from bitwright.engines.native import packed_modules
from bitwright.engines.native.packed_modules import (
    PackedEmbedding,
    PackedExpert,
    PackedExperts,
    PackedLinear,
    PackedMatrix,
    PackedParts,
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
    matrices = {role: PackedLinear(form, (64, 64), nn.Parameter(torch.zeros(64))) for role in ("gate_proj", "up_proj", "down_proj")}
    part, table = PackedParts({"part0": PackedExpert(matrices, nn.SiLU())}), PackedEmbedding(form, SHAPE, scale=8.0, dtype=torch.bfloat16)
    hidden = table.to("meta")(torch.zeros(2, 3, dtype=torch.int64, device="meta"))
    assert (hidden.device.type, hidden.dtype) == ("meta", torch.bfloat16)
    assert part.to("meta")(hidden).shape == (2, 3, 64)


def test_floats_are_kept_in_their_type() -> None:
    layer = PackedLinear(INTEGERS.format("BF16"), SHAPE, None)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(normal(*SHAPE)))
    x = torch.ones(1, 64)
    assert layer.weight.dtype == torch.bfloat16
    assert torch.equal(layer(x), linear(x, layer.weight.float()))


def test_experts_are_weighted_and_summed() -> None:
    roles, shapes = ("gate_proj", "up_proj", "down_proj"), {"gate_proj": (40, 64), "up_proj": (40, 64), "down_proj": (64, 40)}
    experts = [PackedExpert({role: PackedLinear(FORM, shapes[role], None) for role in roles}, nn.SiLU()) for _ in range(3)]
    weights = [
        [filled(matrix, 3 * i + j) for j, matrix in enumerate((expert.gate_proj, expert.up_proj, expert.down_proj))]
        for i, expert in enumerate(experts)
    ]
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    index, share = torch.tensor([[0, 2], [2, 0], [2, 0], [0, 2]]), torch.tensor([[0.7, 0.3], [0.5, 0.5], [1.0, 0.0], [0.1, 0.9]])
    expected = torch.zeros_like(x)
    for t in range(4):
        for k in range(2):
            gate, up, down = weights[index[t, k]]
            expected[t] += share[t, k] * (nn.functional.silu(x[t] @ gate.T) * (x[t] @ up.T)) @ down.T
    assert torch.allclose(PackedExperts(dict(enumerate(experts)))(x, index, share), expected, rtol=1e-3, atol=1e-3)


def test_what_is_shared_is_counted_once() -> None:
    first, second = PackedLinear(FORM, SHAPE, None), PackedLinear(FORM, SHAPE, None)
    assert footprint_bytes(nn.ModuleList([first, second])) == 2 * FORM.size_bytes(SHAPE)
    second.weight = first.weight
    assert footprint_bytes(nn.ModuleList([first, second])) == FORM.size_bytes(SHAPE)


def test_parts_are_summed_and_none_gives_nothing() -> None:
    roles, shapes = ("gate_proj", "up_proj", "down_proj"), {"gate_proj": (40, 64), "up_proj": (40, 64), "down_proj": (64, 40)}
    parts = [PackedExpert({role: PackedLinear(FORM, shapes[role], None) for role in roles}, nn.SiLU()) for _ in range(2)]
    for i, part in enumerate(parts):
        for role in roles:
            filled(part.get_submodule(role), seed=i)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1))
    whole = PackedParts({"part0": parts[0], "part3": parts[1]})
    assert torch.equal(whole(x), parts[0](x) + parts[1](x))
    assert torch.equal(PackedParts({})(x), torch.zeros_like(x))
