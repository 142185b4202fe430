import numpy as np
import pytest
import scipy

from bitwright.predictors import rank_agreement, sums, table_agreement


def test_coefficients_are_scipy_s_and_the_interval_holds_them() -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(size=40)
    predicted = measured + rng.normal(size=40)
    found = rank_agreement(predicted, measured, rng=np.random.default_rng(1))
    assert found.n == 40
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(predicted, measured)[0])
    assert found.kendall == pytest.approx(scipy.stats.kendalltau(predicted, measured)[0])
    assert found.low < found.spearman < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * (1 - found.spearman**2) / np.sqrt(40), rel=0.5)
    assert rank_agreement(predicted, measured, rng=np.random.default_rng(1)) == found


def test_the_interval_is_narrow_where_there_is_much_to_go_by() -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(size=400)
    widths = []
    for n in (20, 400):
        found = rank_agreement((measured + rng.normal(size=400))[:n], measured[:n], rng=np.random.default_rng(0))
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 3


@pytest.mark.parametrize(("predicted", "measured"), [([1, 2], [1, 2]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3], [2, 2, 2]), ([], [])])
def test_undefined_correlations_are_nan(predicted: list[float], measured: list[float]) -> None:
    found = rank_agreement(np.array(predicted, dtype=float), np.array(measured, dtype=float), rng=np.random.default_rng(0))
    assert found.n == len(measured)
    assert np.isnan([found.spearman, found.low, found.high, found.kendall]).all()


def test_sums_are_over_choices() -> None:
    table = np.array([[1.0, 2.0], [10.0, np.nan]])
    np.testing.assert_array_equal(sums(table, np.array([[0, 0], [1, 0], [1, 1]])), [11.0, 12.0, np.nan])


def test_tables_are_compared_over_the_pairs_that_both_have() -> None:
    first = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 5.0]])
    tables = {"a": first, "b": np.exp(first), "c": -first, "d": np.array([[3.0, 2.0, 2.5], [np.nan, 1.0, 9.0]]), "e": np.ones((2, 3))}
    found = table_agreement(tables)
    assert found.shape == (5, 5)
    np.testing.assert_allclose(found[0, :3], [1, 1, -1])
    assert found[0, 3] == found[3, 0] == pytest.approx(scipy.stats.spearmanr([1, 2, 3, 5], [3, 2, 2.5, 9])[0])
    assert np.isnan(found[4, :4]).all()
    np.testing.assert_array_equal(np.diag(found), 1)
