"""Pieces of parameters: the order of llama.cpp's own converter, and back."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitwright.compress import ParameterSlice
from bitwright.compress.models.tensor_layout import Indices, as_indices, indices, interleaved


def permute(weights: np.ndarray, n_head: int) -> np.ndarray:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py."""
    return weights.reshape(n_head, 2, weights.shape[0] // n_head // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


@given(heads=st.integers(1, 5), pairs=st.integers(1, 6), columns=st.integers(1, 4))
def test_rotary_rows_are_in_the_order_of_llama_cpps_converter(heads: int, pairs: int, columns: int) -> None:
    n_rows = heads * 2 * pairs
    weights = np.arange(n_rows * columns, dtype=np.float32).reshape(n_rows, columns)
    found = ParameterSlice("q", -1, interleaved(0, n_rows, heads)).to_engine(torch.from_numpy(weights))
    assert np.array_equal(found.numpy(), permute(weights, heads))


@st.composite
def chosen(draw: st.DrawFn, n: int) -> Indices:
    """Some of `n` rows, evenly spaced or in any order."""
    if draw(st.booleans()):
        start = draw(st.integers(0, n - 1))
        return range(start, draw(st.integers(start + 1, n)), draw(st.integers(1, 3)))
    return tuple(draw(st.permutations(range(n)))[: draw(st.integers(1, n))])


@st.composite
def pieces(draw: st.DrawFn) -> tuple[ParameterSlice, torch.Tensor]:
    """A piece of a matrix, or of one expert of a stack, and the parameter."""
    n_rows, n_columns, n_experts = draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.integers(0, 3))
    transposed = draw(st.booleans())
    shape = (*([n_experts] if n_experts else []), *((n_columns, n_rows) if transposed else (n_rows, n_columns)))
    expert = draw(st.integers(0, n_experts - 1)) if n_experts else -1
    columns = draw(st.none() | chosen(n_columns))
    return ParameterSlice("p", expert, draw(chosen(n_rows)), columns, transposed), torch.arange(float(np.prod(shape))).reshape(shape)


@given(given_piece=pieces())
def test_a_piece_is_its_rows_and_columns_in_their_order(given_piece: tuple[ParameterSlice, torch.Tensor]) -> None:
    piece, parameter = given_piece
    matrix = parameter.numpy() if piece.expert < 0 else parameter[piece.expert].numpy()
    rows = (matrix.T if piece.transposed else matrix)[list(piece.rows)]
    expected = rows if piece.columns is None else rows[:, list(piece.columns)]
    assert np.array_equal(piece.to_engine(parameter).numpy(), expected)


@given(given_piece=pieces())
def test_writing_and_reading_are_inverse_and_touch_nothing_else(given_piece: tuple[ParameterSlice, torch.Tensor]) -> None:
    piece, parameter = given_piece
    before = parameter.clone()
    rows = -1 - torch.arange(float(piece.to_engine(parameter).numel())).reshape(piece.n_rows, -1)
    piece.from_engine(parameter, rows)
    assert torch.equal(piece.to_engine(parameter), rows)
    assert (parameter < 0).sum() == rows.numel()
    assert torch.equal(parameter[parameter >= 0], before[parameter >= 0])
    assert set(piece.rows) <= set(range(piece.start, piece.stop))


@given(given_piece=pieces())
def test_what_is_read_is_a_copy(given_piece: tuple[ParameterSlice, torch.Tensor]) -> None:
    piece, parameter = given_piece
    before = parameter.clone()
    piece.to_engine(parameter).zero_()
    assert torch.equal(parameter, before)


@given(order=st.lists(st.integers(0, 50), unique=True, min_size=1))
def test_indices_keep_any_order_and_are_a_range_where_they_are_even(order: list[int]) -> None:
    found = as_indices(np.array(order))
    assert indices(found).tolist() == order
    steps = {b - a for a, b in pairwise(order)}
    assert isinstance(found, range) == (not steps or (len(steps) == 1 and min(steps) > 0))


def test_rows_are_written_in_the_parameters_own_type() -> None:
    parameter = torch.zeros(2, 2, dtype=torch.bfloat16)
    ParameterSlice("p", -1, range(2)).from_engine(parameter, torch.full((2, 2), 1.5))
    assert parameter.dtype == torch.bfloat16
    assert (parameter == 1.5).all()


def test_a_scale_is_the_engines_alone() -> None:
    parameter = torch.arange(6.0).reshape(3, 2)
    piece = ParameterSlice("p", -1, (2, 0), scale=0.7)
    assert torch.equal(piece.to_engine(parameter), parameter[[2, 0]] * 0.7)
    assert torch.equal(piece.cut(parameter), parameter[[2, 0]])
    piece.from_engine(parameter, torch.tensor([[7.0, 14.0], [21.0, 28.0]]))
    torch.testing.assert_close(parameter, torch.tensor([[30.0, 40.0], [2.0, 3.0], [10.0, 20.0]]))
    original = torch.tensor([[0.1, 0.3], [0.7, 0.9], [1.1, 1.3]])
    piece.put(parameter, piece.cut(original))
    assert torch.equal(parameter[[0, 2]], original[[0, 2]])
