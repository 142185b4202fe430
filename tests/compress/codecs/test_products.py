"""Products with packed matrices, against those with the dequantized ones."""

import numpy as np
import pytest
import torch
from torch.nn.functional import linear

from bitwright.compress import dequantized_per_row, expanded_rows, integer_codec, multiplied
from bitwright.engines import NATIVE
from bitwright.testing.codec_contract import normal

NAMES = ("INT3_G32", "INT1_G64", "BF16", "INT4_2OF4", "INT3_1OF4", "INT2_4OF8", "BF16_2OF4", "INT3_S50", "INT4_R16", "INT1_R8", "SVD_R16")
SHAPE = (40, 96)


def packed(name: str) -> torch.Tensor:
    """Pack normal weights."""
    if name == "BF16":
        return torch.from_numpy(normal(*SHAPE)).bfloat16()
    return torch.from_numpy(integer_codec().encode(normal(*SHAPE), NATIVE.format(name), np.empty((0, SHAPE[1]), dtype=np.float32)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tokens", [(1,), (1, 1), (2, 3)])
def test_a_product_is_that_with_the_dequantized_rows(name: str, tokens: tuple[int, ...]) -> None:
    form, stored = NATIVE.format(name), packed(name)
    x = torch.randn(*tokens, SHAPE[1], generator=torch.Generator().manual_seed(1))
    for wanted in (slice(0, 40), slice(7, 8), slice(13, 40)):
        weights = expanded_rows(stored, form, SHAPE, wanted).double()
        found = multiplied(x, stored, form, SHAPE, wanted)
        error, room = (found - linear(x.double(), weights)).abs(), linear(x.double().abs(), weights.abs())
        assert found.dtype == torch.float32
        assert (error <= 1e-5 * room + 1e-6).all()  # a few of float32's steps of 6e-8, as in any order of addition


@pytest.mark.parametrize("name", ["INT4_G64", "INT4_2OF4", "INT4_R16", "SVD_R16"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_a_product_has_the_type_of_its_inputs(name: str, tokens: int) -> None:
    form, stored, x = NATIVE.format(name), packed(name), torch.ones(tokens, SHAPE[1])
    exact = multiplied(x, stored, form, SHAPE, slice(0, 40))
    found = multiplied(x.bfloat16(), stored, form, SHAPE, slice(0, 40))
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), exact, rtol=0.02, atol=0.02 * float(exact.abs().max()))


@pytest.mark.parametrize("name", ["INT4_G64", "INT4_2OF4", "INT3_S50", "INT4_R16", "SVD_R16"])
def test_inputs_have_the_gradient_of_the_dequantized_rows(name: str) -> None:
    form, stored, x = NATIVE.format(name), packed(name), torch.ones(1, SHAPE[1], requires_grad=True)
    multiplied(x, stored, form, SHAPE, slice(0, 40)).sum().backward()
    weights = expanded_rows(stored, form, SHAPE, slice(0, 40))
    assert x.grad is not None
    assert torch.allclose(x.grad[0], weights.sum(0), atol=1e-4)


def test_of_a_pair_alone_only_the_rank_is_dequantized() -> None:
    assert dequantized_per_row(NATIVE.format("SVD_R16"), 96) == 16
    assert dequantized_per_row(NATIVE.format("INT4_R16"), 96) == 96
    assert dequantized_per_row(NATIVE.format("INT4_2OF4"), 96) == 96
