import math

import numpy as np
import pytest

from bitwright.predictors import Scale, completed, fit_scale, summed


def test_the_factor_is_the_geometric_mean() -> None:
    scale = fit_scale([1.0, 2.0, 4.0], [2.0, 4.0 * 2, 4.0 * 2])
    assert scale.factor == pytest.approx((2 * 4 * 2) ** (1 / 3))
    assert scale.relative_error == pytest.approx(np.std(np.log([2, 4, 2]), ddof=1))
    assert scale.nats(3.0) == pytest.approx(3 * scale.factor)
    assert scale.standard_error(3.0) == pytest.approx(3 * scale.factor * scale.relative_error)


def test_an_exact_proportion_has_no_error() -> None:
    scale = fit_scale([1.0, 5.0], [0.5, 2.5])
    assert (scale.factor, scale.relative_error) == (pytest.approx(0.5), pytest.approx(0, abs=1e-12))


def test_one_measurement_gives_a_factor_and_no_error() -> None:
    scale = fit_scale([2.0], [6.0])
    assert scale == Scale(pytest.approx(3.0), math.inf)
    assert scale.standard_error(1.0) == pytest.approx(3.0)  # at most all of it


@pytest.mark.parametrize(("sums", "measured"), [([], []), ([0.0], [1.0]), ([1.0], [0.0]), ([1.0, 0.0], [-1e-7, 2.0])])
def test_nothing_above_zero_leaves_the_table_as_it_is(sums: list[float], measured: list[float]) -> None:
    assert fit_scale(sums, measured) == Scale(1.0, math.inf)


def test_zeros_are_left_out() -> None:
    assert fit_scale([0.0, 2.0, 4.0], [1.0, 1.0, 2.0]).factor == pytest.approx(0.5)


def test_lists_of_different_lengths_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        fit_scale([1.0, 2.0], [1.0])


def test_sum_of_a_choice() -> None:
    assert summed(np.array([[1.0, 2.0], [10.0, np.nan]]), np.array([1, 0])) == 12


def test_missing_pairs_follow_the_unit_s_own_ratio() -> None:
    nan = np.nan
    table = np.array([[2.0, 4.0, nan], [30.0, nan, nan], [nan, nan, nan], [1.0, 9.0, nan]])
    shape = np.array([[1.0, 2.0, 3.0], [10.0, 1.0, nan], [1.0, 1.0, 1.0], [1.0, 3.0, 5.0]])
    found = completed(table, shape)
    assert found[0].tolist() == [2, 4, 6]
    assert found[1, :2].tolist() == [30, 3]
    assert math.isnan(found[1, 2])  # neither table knows it
    assert found[2].tolist() == [0, 0, 0]
    assert found[3].tolist() == [1, 9, 5 * 2]  # the median of the ratios 1 and 3


def test_one_odd_ratio_does_not_move_the_filled_prices() -> None:
    assert completed(np.array([[1.0, 1.0, 70.0, np.nan]]), np.array([[1.0, 1.0, 10.0, 2.0]])).tolist() == [[1, 1, 70, 2]]


def test_a_shape_of_zero_gives_no_ratio() -> None:
    assert completed(np.array([[5.0, 8.0, np.nan]]), np.array([[0.0, 2.0, 3.0]])).tolist() == [[5, 8, 12]]
