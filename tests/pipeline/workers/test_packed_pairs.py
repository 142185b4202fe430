"""Pieces of tensors: every row in one of them, none across two matrices of a stack, cut by the shape alone."""

import numpy as np
import pytest

from bitwright.pipeline.workers import packed_pairs
from bitwright.pipeline.workers.bench import identity_of
from bitwright.pipeline.workers.packed_pairs import pieces_of
from bitwright.spaces import Tensor


@pytest.mark.parametrize("shape", [(5, 64), (3, 5, 64), (1, 64), (64,)])
@pytest.mark.parametrize("n_weights", [1, 2 * 64, 5 * 64, 1 << 20])
def test_every_row_is_in_one_piece(shape: tuple[int, ...], n_weights: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_pairs, "PIECE_WEIGHTS", n_weights)
    pieces = pieces_of(Tensor("blk.0.attn_q.weight", shape, "F32"))
    n_rows = shape[-2] if len(shape) > 1 else 1
    assert [row for start, stop in pieces for row in range(start, stop)] == [*range(int(np.prod(shape[:-1])))]
    assert all(start // n_rows == (stop - 1) // n_rows for start, stop in pieces)
    assert max(stop - start for start, stop in pieces) == min(n_rows, max(1, n_weights // 64))


def test_a_worker_says_what_differs() -> None:
    here = identity_of("abc")
    assert here.difference(identity_of("abc")) == ""
    assert here.difference(identity_of("abd")) == "model abc, not abd"
