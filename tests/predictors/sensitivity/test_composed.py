import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitwright.predictors.sensitivity.composed import power_product, rank_average, repaired, reweighted, scaled_sum
from bitwright.spaces import GGML_FORMATS, Space, Tensor, Unit

N = np.nan


def space(sizes: np.ndarray, offered: np.ndarray) -> Space:
    units = tuple(Unit(f"u{i}", 0, "u", (Tensor(f"u{i}", (1, 1), "F32"),)) for i in range(len(sizes)))
    return Space(units, GGML_FORMATS[: sizes.shape[1]], sizes, offered, 0, 1)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, Space]:
    """A table and a space of some sizes in which each unit is offered something; some prices are missing."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 6)))
    values = draw(arrays(np.float64, shape, elements=st.floats(0, 10, width=16) | st.just(N)))
    sizes = draw(arrays(np.int64, shape, elements=st.integers(1, 5)))
    offered = draw(arrays(np.bool_, shape))
    offered[:, 0] = True
    return values, space(sizes, offered)


# --- products, ranks, ranges, coefficients


def test_a_product_has_exponents() -> None:
    frequency, weight, error = np.array([[0.5], [2.0]]), np.array([[4.0], [1.0]]), np.array([[1.0, 3.0], [N, 2.0]])
    made = power_product([frequency, weight, error], [1.0, 1.5, 2.0])
    np.testing.assert_allclose(made, [[0.5 * 8 * 1, 0.5 * 8 * 9], [N, 2 * 1 * 4]])
    np.testing.assert_array_equal(power_product([np.array([[0.0, N]]), np.array([[5.0, 7.0]])], [0.0, 1.0]), [[5.0, 7.0]])
    with pytest.raises(ValueError, match="zero or more"):
        power_product([np.array([[-1.0]])], [1.0])
    with pytest.raises(ValueError, match="argument"):
        power_product([np.array([[1.0]])], [1.0, 2.0])


def test_ranks_are_shared_between_tables_of_any_units() -> None:
    first, second = np.array([[1.0, 30.0], [20.0, N]]), np.array([[0.001, 0.5], [0.9, 0.4]])
    np.testing.assert_allclose(rank_average([first, second]), [[0.0, 0.75], [0.75, N]])
    np.testing.assert_allclose(rank_average([first]), rank_average([np.exp(first / 10)]))
    np.testing.assert_allclose(rank_average([np.array([[2.0, 2.0, 5.0]])]), [[0.25, 0.25, 1.0]])


def test_ranges_are_added_with_coefficients() -> None:
    first, second = np.array([[1.0, 3.0], [2.0, N]]), np.array([[10.0, 10.0], [30.0, 99.0]])
    np.testing.assert_allclose(scaled_sum([first, second], [1.0, 4.0]), [[0.0, 1.0], [0.5 + 4.0, N]])
    np.testing.assert_allclose(scaled_sum([np.full((1, 2), 7.0)], [1.0]), [[0.0, 0.0]])


def test_coefficients_are_of_units() -> None:
    np.testing.assert_array_equal(reweighted(np.array([[1.0, 2.0], [N, 4.0]]), np.array([3.0, 0.5])), [[3.0, 6.0], [N, 2.0]])


# --- repair


@given(tables())
def test_a_repaired_table_never_rises_with_size(made: tuple[np.ndarray, Space]) -> None:
    table, where = made
    found = repaired(table, where)
    for u in range(len(table)):
        has = np.flatnonzero(where.offered[u] & ~np.isnan(table[u]))
        for f in has:
            larger = has[where.size_bits[u, has] > where.size_bits[u, f]]
            assert (found.table[u, larger] <= found.table[u, f] + 1e-9).all()
    assert (np.isnan(found.table) == np.isnan(table)).all()
    np.testing.assert_array_equal(found.table[~where.offered], table[~where.offered])


@given(tables())
def test_exactly_the_changed_pairs_are_listed(made: tuple[np.ndarray, Space]) -> None:
    table, where = made
    found = repaired(table, where)
    told = np.zeros(table.shape, dtype=bool)
    told[tuple(found.changed.T)] = True
    np.testing.assert_array_equal(found.table[~told], table[~told])
    assert (found.table[told] != table[told]).all()
    assert not len(repaired(found.table, where).changed)


def test_a_dip_is_pooled_with_its_neighbour() -> None:
    """Prices 5, 1, 3, 0 from the smallest format to the largest: 1 and 3 meet in the middle. A table in order stays as it is."""
    sizes, offered = np.array([[4, 3, 2, 1]]), np.ones((1, 4), dtype=bool)
    found = repaired(np.array([[0.0, 3.0, 1.0, 5.0]]), space(sizes, offered))
    np.testing.assert_array_equal(found.table, [[0.0, 2.0, 2.0, 5.0]])
    assert found.changed.tolist() == [[0, 1], [0, 2]]
    kept = repaired(np.array([[0.0, 1.0, 3.0, 5.0]]), space(sizes, offered))
    assert kept.changed.shape == (0, 2)


def test_formats_of_one_size_may_have_any_prices() -> None:
    for prices in ([1.0, 2.0, 3.0], [2.0, 1.0, 3.0]):
        assert not len(repaired(np.array([prices]), space(np.array([[4, 4, 1]]), np.ones((1, 3), dtype=bool))).changed)
