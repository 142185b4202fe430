"""Packed positions, held to the slow definition of the index of a pattern."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitwright.compress.codecs.positions import kept_places, packed_positions
from bitwright.spaces import NATIVE_FORMATS, NOfM, Pattern, SparseFormat

PATTERNS = tuple(dict.fromkeys(form.pattern for form in NATIVE_FORMATS if isinstance(form, SparseFormat)))


def masks(pattern: Pattern, n_rows: int, n_columns: int, seed: int) -> np.ndarray:
    """Random masks of a pattern."""
    rng = np.random.default_rng(seed)
    among = pattern.of if isinstance(pattern, NOfM) else n_columns
    rows = np.arange(among) < pattern.n_kept(among)
    return rng.permuted(np.tile(rows, (n_rows * n_columns // among, 1)), axis=1).reshape(n_rows, n_columns)


@given(pattern=st.sampled_from(PATTERNS), n_rows=st.integers(1, 5), eighths=st.integers(1, 20), seed=st.integers(0, 99))
def test_positions_come_back(pattern: Pattern, n_rows: int, eighths: int, seed: int) -> None:
    mask = masks(pattern, n_rows, 8 * eighths, seed)
    packed = packed_positions(mask, pattern)
    assert packed.shape == (n_rows, pattern.size_bytes(8 * eighths))
    places = np.where(mask, np.cumsum(mask).reshape(mask.shape), 0)
    assert np.array_equal(kept_places(torch.from_numpy(packed), pattern, 8 * eighths).numpy(), places)


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if isinstance(pattern, NOfM)], ids=lambda pattern: pattern.name)
def test_an_index_counts_the_patterns_in_order(pattern: NOfM) -> None:
    for index, kept in enumerate(combinations(range(pattern.of), pattern.kept)):
        row = np.zeros((1, 8 * pattern.of), dtype=bool)
        row[:, list(kept)] = True
        row[:, [pattern.of * (i + 1) + j for i in range(7) for j in range(pattern.kept)]] = True  # the others have index 0
        bits = np.unpackbits(packed_positions(row, pattern), axis=1)[0, : pattern.code_bits]
        assert int("".join(map(str, bits)), 2) == index


def test_an_index_beyond_the_last_pattern_is_that_of_a_pattern() -> None:
    every = torch.full((1, 3), 255, dtype=torch.uint8)
    assert kept_places(every, NOfM(2, 4), 32).view(-1, 4).tolist() == [[0, 0, 2 * i + 1, 2 * i + 2] for i in range(8)]
