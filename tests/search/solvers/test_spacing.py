"""Even spacing: as even as the best of all subsets, and always as many as asked for."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwright.search.solvers.spacing import evenly_spaced

POINTS = st.lists(st.integers(0, 40), max_size=9).map(lambda values: np.array(values, dtype=np.float64))


def unevenness(fixed: NDArray[np.float64], candidates: NDArray[np.float64], chosen: NDArray[np.int64]) -> float:
    everything = np.concatenate([fixed, candidates])
    points = np.sort(np.concatenate([[everything.min(), everything.max()], fixed, candidates[chosen]]))
    return float(np.diff(points).std())


@given(POINTS, POINTS, st.integers(0, 6))
@settings(deadline=None)
def test_no_other_subset_is_more_even(fixed: NDArray[np.float64], candidates: NDArray[np.float64], n: int) -> None:
    chosen = evenly_spaced(fixed, candidates, n)
    assert len(chosen) == min(n, len(candidates))
    assert (np.diff(chosen) > 0).all()
    if len(candidates):
        subsets = [np.array(subset, dtype=np.int64) for subset in combinations(range(len(candidates)), len(chosen))]
        assert unevenness(fixed, candidates, chosen) == pytest.approx(min(unevenness(fixed, candidates, subset) for subset in subsets))


def test_gaps_are_filled() -> None:
    assert evenly_spaced(np.array([0.0, 10.0]), np.array([1.0, 5.0, 9.0]), 1).tolist() == [1]
    assert evenly_spaced(np.array([0.0, 5.0, 20.0]), np.array([1.0, 2.0, 10.0, 15.0, 19.0]), 2).tolist() == [2, 3]
    assert evenly_spaced(np.zeros(0), np.array([0.0, 1.0, 2.0, 8.0, 9.0]), 3).tolist() in ([0, 2, 4], [0, 3, 4], [1, 2, 3], [0, 2, 3], [1, 2, 4])
