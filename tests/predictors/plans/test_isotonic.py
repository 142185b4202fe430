import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitwright.errors import UserError
from bitwright.predictors.plans.isotonic import IsotonicPredictor
from bitwright.predictors.plans.predictor import Predictor
from bitwright.testing.predictor_contract import PredictorContract
from bitwright.testing.random_plans import additive


class TestIsotonicPredictor(PredictorContract):
    needed = 4
    exactness = 0.02  # the ends are carried on with one slope

    def predictor(self, table: np.ndarray) -> Predictor:
        return IsotonicPredictor(table)


ONE_UNIT = np.array([[0.5 * 2.0**i for i in range(12)]])  # a choice is an index into sums


def fitted(values: list[float], sums: range) -> np.ndarray:
    """Predictions for every sum of ONE_UNIT after measuring those of `sums`."""
    choices = np.array(sums)[:, None]
    return IsotonicPredictor(ONE_UNIT).fit(choices, np.array(values), np.zeros(len(values)))(np.arange(12)[:, None])[0]


def test_a_power_law_is_fitted_and_extrapolated() -> None:
    found = fitted([3 * ONE_UNIT[0, i] ** 1.3 for i in range(3, 9)], range(3, 9))
    np.testing.assert_allclose(found, 3 * ONE_UNIT[0] ** 1.3)


def test_saturation_is_fitted() -> None:
    true = ONE_UNIT[0] / (1 + ONE_UNIT[0] / 20)
    found = fitted(true[2:10].tolist(), range(2, 10))
    np.testing.assert_allclose(found[2:10], true[2:10])


def test_falling_values_are_pooled() -> None:
    found = fitted([1.0, 4.0, 2.0, 16.0], range(4))
    np.testing.assert_allclose(found[0], 1)
    block = np.sqrt(8)  # 4 and 2 become one, at a sum half way between theirs
    np.testing.assert_allclose(found[1:4], [block ** (2 / 3), block ** (2 / 3) * 16 ** (1 / 3), 16])


@pytest.mark.slow
@given(st.lists(st.integers(1, 10**6), min_size=4, max_size=12))
@example([461447] * 4)
def test_the_map_falls_nowhere_and_rises_beyond_the_ends(values: list[int]) -> None:
    found = fitted([value / 1000 for value in values], range(len(values)))
    assert (np.diff(found) >= 0).all()  # blocks of one value stay level where rounding parts them
    assert found[0] < found[1]
    assert found[-2] < found[-1]


def test_equal_sums_count_as_one() -> None:
    choices, values = np.array([[1], [1], [3], [3], [5]]), np.array([1.0, 4.0, 9.0, 4.0, 20.0])
    found = IsotonicPredictor(ONE_UNIT).fit(choices, values, np.zeros(5))(choices)[0]
    np.testing.assert_allclose(found, [2, 2, 6, 6, 20])


def test_values_not_above_zero_are_left_out() -> None:
    choices, values = np.arange(6)[:, None], np.array([0.0, 1.0, -1e-7, 4.0, 8.0, 16.0])
    predictor = IsotonicPredictor(ONE_UNIT)
    found, without = (predictor.fit(c, v, 0 * v)(choices)[0] for c, v in ((choices, values), (choices[values > 0], values[values > 0])))
    np.testing.assert_array_equal(found, without)
    with pytest.raises(UserError, match="there are 3"):
        predictor.fit(choices[:5], values[:5], 0 * values[:5])


def test_a_choice_that_costs_nothing_by_the_table_is_zero() -> None:
    plans = additive(20, noise=0.1)
    table = plans.table.copy()
    table[:, -1] = 0
    choices = np.minimum(plans.choices, 2)
    means, deviations = IsotonicPredictor(table).fit(choices, plans.values, plans.errors)(np.full((1, len(table)), 3))
    assert means.tolist() == deviations.tolist() == [0.0]
