"""Rows of tensors in the types in which a folder stores them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import GGUF_VIEW, MODULE_VIEW, FolderCheckpoint, View, open_checkpoint, open_source
from bitwright.compress.models.row_source import RowSource
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import Tensor


class Transposed(RowSource):
    """A matrix that a module holds transposed, and the number of times that it is read."""

    def __init__(self) -> None:
        self.matrix, self.n_reads = torch.randn(5, 40), Counter[str]()
        self.tensors = (Tensor("w", (40, 5), "F32"),)
        self.pieces = {"w": (ParameterSlice("w", -1, range(40), transposed=True),)}
        self.rows = self.read_rows

    def read_rows(self, piece: ParameterSlice) -> torch.Tensor:
        self.n_reads[piece.parameter] += 1
        return piece.to_engine(self.matrix)

    def values(self, tensor: Tensor) -> torch.Tensor:
        return self.joined_rows(tensor)


def test_a_transposed_matrix_is_read_once_for_all_chosen_rows() -> None:
    made = Transposed()
    rows = np.array([1, 2, 39])
    assert np.array_equal(made.chosen_rows(made.tensors[0], rows), made.matrix.mT.numpy()[rows])
    assert made.n_reads == {"w": 1}


@pytest.mark.parametrize("view", [GGUF_VIEW, MODULE_VIEW])
def test_chosen_rows_are_those_of_the_whole(view: View, llama_gqa: Path) -> None:
    source = open_source(str(llama_gqa), view)
    assert isinstance(source, RowSource)
    for tensor in (tensor for tensor in source.tensors if len(tensor.shape) == 2):
        n_rows = tensor.shape[0]
        for rows in (np.arange(0, n_rows, 3), np.array([0, n_rows - 1]), np.array([], dtype=np.int64)):
            assert np.array_equal(source.chosen_rows(tensor, rows), source.read(tensor)[rows])
        assert np.array_equal(source.some_rows(tensor, 1, n_rows - 1), source.read(tensor)[1 : n_rows - 1])


@pytest.mark.parametrize("view", [GGUF_VIEW, MODULE_VIEW])
def test_matrices_in_bfloat16_are_not_read_to_find_their_type(view: View, llama_gqa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(str(llama_gqa))
    assert isinstance(checkpoint, FolderCheckpoint)
    known, narrowest = view.source(checkpoint), RowSource.narrowest

    def of_vectors(source: RowSource, pieces: tuple[ParameterSlice, ...]) -> str:
        listed = list(pieces)
        assert all("norm" in piece.parameter for piece in listed)
        return narrowest(source, listed)

    monkeypatch.setattr(RowSource, "narrowest", of_vectors)
    found = view.source(checkpoint)
    assert found.tensors == known.tensors
    assert {tensor.stored for tensor in found.tensors if len(tensor.shape) == 2} == {"BF16"}


def test_stored_rows_are_the_rows_in_their_own_type(llama_gqa: Path) -> None:
    checkpoint = open_checkpoint(str(llama_gqa))
    assert isinstance(checkpoint, FolderCheckpoint)
    for pieces in open_source(str(llama_gqa), MODULE_VIEW).pieces.values():  # type: ignore[attr-defined]
        for piece in pieces:
            stored = checkpoint.shards.stored_rows(piece)
            assert stored.dtype == torch.bfloat16
            assert torch.equal(stored.float(), checkpoint.shards.rows(piece))
