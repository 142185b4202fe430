"""Fronts against brute force and against a grid."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.search import Front, hull, hypervolume, nondominated, solve, spread
from bitwright.spaces import Space
from tests.search.instances import Table, every_choice, instances, language_model, losses, thorough

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12).map(lambda rows: np.array(rows, dtype=np.float64))


@pytest.mark.slow
@given(instances())
@thorough
def test_every_hull_point_is_the_best_of_its_size(instance: tuple[Space, Table]) -> None:
    space, table = instance
    front, choices = hull(space, table), every_choice(space)
    size, loss = space.total_bits(choices), losses(table, choices)
    for bits, found in zip(front.size_bits, front.loss, strict=True):
        assert found == pytest.approx(loss[size <= bits].min(), abs=1e-12)


@pytest.mark.slow
@given(instances())
@thorough
def test_no_choice_lies_below_the_hull(instance: tuple[Space, Table]) -> None:
    space, table = instance
    front, choices = hull(space, table), every_choice(space)
    size, loss = space.total_bits(choices), losses(table, choices)
    assert (loss >= np.interp(size, front.size_bits, front.loss) - 1e-9).all()
    assert front.size_bits[0] == size.min()
    assert front.loss[-1] == pytest.approx(loss.min(), abs=1e-12)


@given(instances())
@settings(deadline=None)
def test_a_hull_rises_in_size_falls_in_loss_and_says_what_it_holds(instance: tuple[Space, Table]) -> None:
    space, table = instance
    front = hull(space, table)
    assert (np.diff(front.size_bits) > 0).all()
    assert (np.diff(front.loss) < 0).all()
    assert space.offered[np.arange(len(space.units)), front.choices].all()
    assert (space.total_bits(front.choices) == front.size_bits).all()
    assert front.loss == pytest.approx(losses(table, front.choices), abs=1e-12)
    assert nondominated(np.column_stack((front.size_bits, front.loss))).all()


def test_the_knapsack_agrees_at_the_sizes_of_a_large_hull() -> None:
    space, table = language_model(2, shape_aware=True)
    front = hull(space, table)
    for point in spread(front, 12):
        assert solve(space, table, int(front.size_bits[point])).loss == pytest.approx(front.loss[point], rel=1e-12)


def test_a_thinned_hull_keeps_points_of_the_whole_one() -> None:
    space, table = language_model(2, shape_aware=True)
    whole, thinned = hull(space, table), hull(space, table, n_points=20)
    kept = spread(whole, 20)
    assert thinned.size_bits.tolist() == whole.size_bits[kept].tolist()
    assert (thinned.choices == whole.choices[kept]).all()


@given(st.integers(2, 3).flatmap(lambda d: st.lists(st.lists(st.integers(0, 4), min_size=d, max_size=d), min_size=1, max_size=15)))
def test_nondominated_is_what_the_definition_says(rows: list[list[int]]) -> None:
    values = np.array(rows, dtype=np.float64)
    beaten = [any((other <= row).all() and (other < row).any() for other in values) for row in values]
    assert nondominated(values).tolist() == [not b for b in beaten]


@given(POINTS)
def test_hypervolume_counts_the_cells_of_a_grid(points: NDArray[np.float64]) -> None:
    reference = np.array([8.0, 7.0])
    cells = np.stack(np.meshgrid(np.arange(8), np.arange(7)), axis=-1).reshape(-1, 2)  # lower left corners of cells below the reference
    covered = (points[:, None] <= cells).all(axis=2).any(axis=0)
    assert hypervolume(points, reference) == covered.sum()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_hypervolume_of_three_columns_counts_the_cells_of_a_grid(rows: list[tuple[int, int, int]]) -> None:
    reference = np.array([6.0, 5.0, 4.0])
    cells = np.stack(np.meshgrid(np.arange(6), np.arange(5), np.arange(4)), axis=-1).reshape(-1, 3)
    covered = (np.array(rows)[:, None] <= cells).all(axis=2).any(axis=0)
    assert hypervolume(np.array(rows, dtype=np.float64), reference) == covered.sum()


@given(st.lists(st.tuples(*[st.floats(0.0, 1.2)] * 3), min_size=1, max_size=6))
def test_hypervolume_of_three_columns_by_inclusion_and_exclusion(rows: list[tuple[float, float, float]]) -> None:
    boxes = [corners for n in range(1, len(rows) + 1) for corners in combinations(np.array(rows), n)]
    volume = sum((-1) ** (len(corners) + 1) * np.maximum(1 - np.max(corners, axis=0), 0).prod() for corners in boxes)
    assert hypervolume(np.array(rows), np.ones(3)) == pytest.approx(volume, abs=1e-12)


def test_hypervolume_of_many_points_is_what_random_ones_say() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((40, 3)) ** 0.5
    hits = (points[:, None] <= rng.random((40_000, 3))).all(axis=2).any(axis=0)
    assert hypervolume(points, np.ones(3)) == pytest.approx(hits.mean(), abs=4 * hits.std() / 200)


def test_a_third_column_that_is_equal_for_all_multiplies_the_area() -> None:
    points = np.random.default_rng(1).random((30, 2))
    solid = np.column_stack((points, np.full(30, 0.25)))
    assert hypervolume(solid, np.ones(3)) == pytest.approx(0.75 * hypervolume(points, np.ones(2)))
    assert hypervolume(solid[:0], np.ones(3)) == 0


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40, unique=True).map(sorted), st.integers(2, 20))
def test_a_spread_holds_both_ends_and_no_point_twice(sizes: list[int], n: int) -> None:
    front = Front(np.zeros((len(sizes), 1), dtype=np.int64), np.array(sizes), -np.arange(len(sizes), dtype=np.float64))
    chosen = spread(front, n)
    assert len(chosen) == min(n, len(sizes))
    assert (np.diff(chosen) > 0).all()
    assert (chosen[0], chosen[-1]) == (0, len(sizes) - 1)


def test_a_spread_is_even_along_the_size() -> None:
    sizes = np.concatenate((np.arange(0, 100), np.arange(100, 1001, 100)))
    front = Front(np.zeros((len(sizes), 1), dtype=np.int64), sizes, -np.arange(len(sizes), dtype=np.float64))
    assert sizes[spread(front, 11)].tolist() == list(range(0, 1001, 100))


def test_what_is_not_a_front_is_refused() -> None:
    with pytest.raises(UserError, match="one is NaN"):
        nondominated(np.array([[0.0, float("nan")]]))
    for shape in [(1, 3), (1, 4), (1, 1)]:
        with pytest.raises(UserError, match=rf"\({shape[0]}, {shape[1]}\)"):
            hypervolume(np.zeros(shape), np.ones(2))
    with pytest.raises(UserError, match="one is NaN"):
        hypervolume(np.array([[0.0, float("nan"), 0.0]]), np.ones(3))
    with pytest.raises(UserError, match="ask for 2 or more"):
        spread(Front(np.zeros((1, 1), dtype=np.int64), np.zeros(1, dtype=np.int64), np.zeros(1)), 1)
