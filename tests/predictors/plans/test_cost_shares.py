import numpy as np
import pytest

from bitwright.predictors.plans.cost_shares import cost_shares

TABLE = np.array([[1.0, 3.0, np.nan], [2.0, 0.0, 6.0]])


def test_sums_and_shares() -> None:
    found = cost_shares(TABLE, np.array([[0, 0], [1, 2], [1, 1]]))
    np.testing.assert_allclose(np.exp(found.log_sum), [3, 9, 3])
    np.testing.assert_allclose(found.parts, [[1 / 3, 2 / 3], [1 / 3, 2 / 3], [1, 0]])


def test_a_choice_that_costs_nothing_has_no_shares() -> None:
    found = cost_shares(np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[0, 0], [0, 1]]))
    assert found.log_sum.tolist() == [-np.inf, 0]
    assert found.parts.tolist() == [[0, 0], [0, 1]]


def test_a_price_below_zero_counts_as_zero() -> None:
    found = cost_shares(np.array([[-1.0], [2.0]]), np.array([[0, 0]]))
    np.testing.assert_allclose(np.exp(found.log_sum), [2])
    assert found.parts.tolist() == [[0, 1]]


def test_a_pair_without_a_price_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="every pair"):
        cost_shares(TABLE, np.array([[2, 0]]))


def test_some_of_them() -> None:
    every = cost_shares(TABLE, np.array([[0, 0], [1, 2], [1, 1]]))
    some = every.only(np.array([2, 0]))
    assert len(some) == 2
    assert some.choices.tolist() == [[1, 1], [0, 0]]
    np.testing.assert_array_equal(some.log_sum, every.log_sum[[2, 0]])
    np.testing.assert_array_equal(some.parts, every.parts[[2, 0]])
