import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitwright.predictors.sensitivity.ranked_scores import layer_scores, scored_table, sized
from bitwright.spaces import Space
from tests.predictors.arrays import written


def space_of_sizes(*sizes: int) -> Space:
    """Return a space with a unit for each number of rows of 8 weights."""
    return written([[np.ones((size, 8))] for size in sizes])[0]


def test_by_hand() -> None:
    space = space_of_sizes(1, 3, 1, 5)
    error = np.array([[0.1, 1.0], [0.1, np.nan], [0.2, 2.0], [0.0, 1.0]])
    table = scored_table(np.array([-7.0, 4.0, 4.0, 900.0]), space, relative_error=error)
    factors = np.array([1, 2.5, 2.5, 4]) / 4 * np.array([1, 3, 1, 5]) / 10
    np.testing.assert_allclose(table, factors[:, None] * error)


def test_the_sum_of_sized_errors_is_a_mean_over_weights() -> None:
    error = np.array([[0.5], [0.1]])
    assert sized(error, space_of_sizes(1, 3)).sum() == pytest.approx((8 * 0.5 + 24 * 0.1) / 32)


scores = arrays(np.float64, st.integers(2, 8), elements=st.floats(-1e6, 1e6))


@pytest.mark.slow
@given(scores, st.integers(0, 100))
def test_a_common_format_is_lowered_in_the_order_of_the_scores(values: np.ndarray, seed: int) -> None:
    """Cost over bits saved, which is what a knapsack goes by: as the scores order the units, whatever their sizes."""
    rng = np.random.default_rng(seed)
    space = space_of_sizes(*rng.integers(1, 5, len(values)))
    table = scored_table(values, space, relative_error=np.full(space.offered.shape, 0.3))
    f = int(np.flatnonzero(space.offered[0])[0])
    per_bit = (table / space.size_bits.clip(1))[:, f]
    np.testing.assert_allclose(per_bit / per_bit.sum(), scipy.stats.rankdata(values) / scipy.stats.rankdata(values).sum())


@given(scores)
def test_only_the_order_of_the_scores_counts(values: np.ndarray) -> None:
    space = space_of_sizes(*[1] * len(values))
    error = np.ones(space.offered.shape)
    other = scipy.stats.rankdata(values) ** 3
    np.testing.assert_array_equal(scored_table(values, space, relative_error=error), scored_table(other, space, relative_error=error))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_a_mistake(value: float) -> None:
    space = space_of_sizes(1, 1)
    with pytest.raises(ValueError, match="finite"):
        scored_table(np.array([1.0, value]), space, relative_error=np.ones(space.offered.shape))


def test_units_have_their_block_s_score_and_those_outside_the_highest() -> None:
    space, _ = written([[np.ones((1, 8))]] * 5, layers=[-1, 0, 1, 1, -1])
    assert layer_scores(space, np.array([-3.0, -5.0])).tolist() == [-3, -3, -5, -5, -3]
