import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.predictors.sensitivity.weights.weight_shape import kurtosis_scores, outlier_scores, zd_scores
from tests.predictors.arrays import written


def test_zd_by_hand() -> None:
    space, levels = written([[[[0, 0, 0, 0, 0, 0, 0, 8]]], [[[-8, 0, 0, 0, 0, 0, 0, 0]]], [[[3] * 8]], [[[5, 6, 6, 6, 6, 6, 6, 7]]]])
    assert zd_scores(space, levels).tolist() == [-1 / 8, 0, 0, -1 / 8]  # only above the mean, and above it by a deviation


def test_kurtosis_by_hand() -> None:
    space, levels = written([[[[1, -1, 1, -1]]], [[[2, 2, 2, 2]]], [[[0, 0, 0, 4]]]])
    # mean 1, variance 3, fourth moment (3 · 1 + 81) / 4 = 21
    np.testing.assert_allclose(kurtosis_scores(space, levels), [1, 0, 21 / 9])


def test_outlier_share_by_hand() -> None:
    """Outliers go by size alone without importance; with it by size times the root of the channel's mean square, expert by expert."""
    row = [[1, 1, 1, 1, 1, 1, 1, 1, 1, -20]]  # mean size 2.9, so 20 is above five times that
    experts = [[1] * 10, [1] * 9 + [0]]
    importance = {"1.0": np.array([[1.0] * 10, [1.0] * 10]), "2.0": np.array([[1.0] * 10, [400.0] + [1.0] * 9])}
    importance["3.0"] = np.array([[1.0] * 10, [16.0] + [1.0] * 9])
    space, levels = written([[row], [experts], [experts], [experts]], {name: channels.astype(np.float32) for name, channels in importance.items()})
    # the third: ten ones, then 20, eight ones and 0, of mean 38/20, so that one is above five times it; in the last 4 is not above 5 · 22/20
    np.testing.assert_allclose(outlier_scores(space, levels), [1 / 10, 0, 1 / 20, 0])


def test_tensors_of_a_unit_are_one_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((3, 16)), 5 + rng.standard_normal((2, 16))]
    found = []
    for at_once in (1 << 22, 20):
        monkeypatch.setattr("bitwright.predictors.sensitivity.weights.weight_shape._WEIGHTS_AT_ONCE", at_once)
        found += [[score(*written([unit])) for score in (zd_scores, kurtosis_scores, outlier_scores)] for unit in (parts, [np.concatenate(parts)])]
    np.testing.assert_allclose(found, [found[0]] * 4, rtol=1e-9)


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_scale_does_not_count_and_scores_stay_in_range(seed: int, scale: float) -> None:
    weights = np.random.default_rng(seed).standard_t(3, (4, 32)).round(3)
    before, after = (
        np.concatenate([score(*written([[w]])) for score in (zd_scores, kurtosis_scores, outlier_scores)]) for w in (weights, scale * weights)
    )
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1 / 128 + 1e-9)  # one weight may lie on the border
    assert -0.5 <= before[0] < 0
    assert before[1] >= 1
    assert 0 <= before[2] <= 0.2


def test_normal_weights_have_the_values_of_the_normal_distribution() -> None:
    space, levels = written([[np.random.default_rng(0).standard_normal((500, 400))]])
    assert zd_scores(space, levels)[0] == pytest.approx(-0.1587, abs=2e-3)
    assert kurtosis_scores(space, levels)[0] == pytest.approx(3, abs=0.05)
