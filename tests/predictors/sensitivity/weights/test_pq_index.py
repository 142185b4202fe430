import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitwright.predictors.sensitivity.weights.pq_index import pq_index, pq_scores
from tests.predictors.arrays import written

orders = st.tuples(st.floats(0.2, 1.0), st.floats(0.1, 1.0)).map(lambda pair: (pair[0], pair[0] + pair[1]))
vectors = arrays(np.float64, st.integers(2, 40), elements=st.floats(-100, 100).filter(lambda w: w == 0 or abs(w) > 1e-3)).filter(np.any)


def largest(n_weights: int, p: float, q: float) -> float:
    return 1 - n_weights ** (1 / q - 1 / p)


@given(st.integers(2, 50), orders, st.floats(0.1, 10))
def test_one_weight_that_is_not_zero_has_the_largest_index(n_weights: int, order: tuple[float, float], size: float) -> None:
    weights = np.zeros(n_weights)
    weights[n_weights // 2] = -size
    assert pq_index(weights, *order) == pytest.approx(largest(n_weights, *order))


@given(st.integers(1, 50), orders, st.floats(0.1, 10))
def test_equal_weights_have_an_index_of_zero(n_weights: int, order: tuple[float, float], size: float) -> None:
    signs = np.where(np.arange(n_weights) % 3, 1, -1)
    assert pq_index(size * signs, *order) == pytest.approx(0, abs=1e-9)


@given(vectors, orders)
def test_every_other_index_lies_between(weights: np.ndarray, order: tuple[float, float]) -> None:
    assert -1e-9 <= pq_index(weights, *order) <= largest(len(weights), *order) + 1e-9


@given(vectors, orders, st.floats(0.01, 100))
def test_scale_and_copies_do_not_count(weights: np.ndarray, order: tuple[float, float], scale: float) -> None:
    index = pq_index(weights, *order)
    assert pq_index(scale * weights, *order) == pytest.approx(index, abs=1e-9)
    assert pq_index(np.tile(weights, (3, 1)), *order) == pytest.approx(index, abs=1e-9)


def test_by_hand() -> None:
    # p = 1/2: (1 + 2 + 0)² = 9; q = 1: 1 + 4 + 0 = 5; d^(1 - 2) = 1/3
    assert pq_index(np.array([1.0, -4.0, 0.0]), 0.5, 1.0) == pytest.approx(1 - 9 / 5 / 3)


def test_nothing_but_zeros_is_even() -> None:
    assert pq_index(np.zeros(5), 0.5, 1.0) == 0


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-1.0, 1.0)])
def test_orders_that_make_no_index_are_a_mistake(p: float, q: float) -> None:
    with pytest.raises(ValueError, match="0 < p < q"):
        pq_index(np.ones(3), p, q)


def test_a_unit_s_score_is_minus_the_index_of_all_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    units = [[rng.standard_normal((3, 8)), rng.standard_normal((2, 8)) ** 3], [np.ones((1, 8))]]
    expected = [-pq_index(np.concatenate([matrix.astype(np.float32) for matrix in unit]), 0.5, 1.0) for unit in units]
    space, levels = written(units)
    np.testing.assert_allclose(pq_scores(space, levels), expected, atol=1e-12)
    monkeypatch.setattr("bitwright.predictors.sensitivity.weights.pq_index._WEIGHTS_AT_ONCE", 5)
    np.testing.assert_allclose(pq_scores(space, levels), expected, atol=1e-12)
    assert pq_scores(space, levels, p=1.0, q=2.0)[0] != expected[0]
