"""Pieces of parameters: the order of llama.cpp's own converter, and back."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitwright.compress import ParameterSlice


def permute(weights: np.ndarray, n_head: int) -> np.ndarray:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    return weights.reshape(n_head, 2, weights.shape[0] // n_head // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


@given(heads=st.integers(1, 5), pairs=st.integers(1, 6), columns=st.integers(1, 4))
def test_rotary_rows_are_in_the_order_of_llama_cpps_converter(heads: int, pairs: int, columns: int) -> None:
    n_rows = heads * 2 * pairs
    weights = np.arange(n_rows * columns, dtype=np.float32).reshape(n_rows, columns)
    found = ParameterSlice("q", -1, 0, n_rows, heads).to_engine(torch.from_numpy(weights))
    assert np.array_equal(found.numpy(), permute(weights, heads))


@st.composite
def pieces(draw: st.DrawFn) -> tuple[ParameterSlice, torch.Tensor]:
    """A piece of a matrix, or of one expert of a stack, and the parameter."""
    heads = draw(st.integers(0, 4))
    n_rows = 2 * heads * draw(st.integers(1, 3)) if heads else draw(st.integers(1, 9))
    start, rest, columns = draw(st.integers(0, 4)), draw(st.integers(0, 4)), draw(st.integers(1, 4))
    n_experts = draw(st.integers(0, 3))
    shape = (*([n_experts] if n_experts else []), start + n_rows + rest, columns)
    expert = draw(st.integers(0, n_experts - 1)) if n_experts else -1
    return ParameterSlice("p", expert, start, start + n_rows, heads), torch.arange(float(np.prod(shape))).reshape(shape)


@given(given_piece=pieces())
def test_writing_and_reading_are_inverse_and_touch_nothing_else(given_piece: tuple[ParameterSlice, torch.Tensor]) -> None:
    piece, parameter = given_piece
    before = parameter.clone()
    rows = -1 - torch.arange(float(piece.n_rows * parameter.shape[-1])).reshape(piece.n_rows, -1)
    piece.from_engine(parameter, rows)
    assert torch.equal(piece.to_engine(parameter), rows)
    assert (parameter < 0).sum() == rows.numel()
    assert torch.equal(parameter[parameter >= 0], before[parameter >= 0])
    inside = parameter if piece.expert < 0 else parameter[piece.expert]
    assert (inside[piece.start : piece.stop] < 0).all()


@given(given_piece=pieces())
def test_what_is_read_is_a_copy(given_piece: tuple[ParameterSlice, torch.Tensor]) -> None:
    piece, parameter = given_piece
    before = parameter.clone()
    piece.to_engine(parameter).zero_()
    assert torch.equal(parameter, before)


def test_rows_are_written_in_the_parameters_own_type() -> None:
    parameter = torch.zeros(2, 2, dtype=torch.bfloat16)
    ParameterSlice("p", -1, 0, 2, 0).from_engine(parameter, torch.full((2, 2), 1.5))
    assert parameter.dtype == torch.bfloat16
    assert (parameter == 1.5).all()
