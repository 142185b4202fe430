import numpy as np
import pytest
import torch

from bitwright.compress import Floats, Grid, MinimumGrid, Rounded, Rounding, RoundToNearest, SymmetricGrid, ZeroPointGrid, round_stack
from bitwright.compress import rounding as roundings
from bitwright.compress.rounding import grouped, ungrouped, values

from .contract import normal


def test_a_short_group_is_filled_and_cut_again() -> None:
    rows = normal(3, 10)
    groups = grouped(rows, 4)
    assert groups.shape == (3, 3, 4)
    assert (groups[:, 2, 2:] == rows[:, 9:]).all()
    assert np.array_equal(ungrouped(groups, 10), rows)


@pytest.mark.parametrize("grid", [MinimumGrid(4), ZeroPointGrid(4, torch.float32), SymmetricGrid(4, torch.float32)])
def test_round_to_nearest_is_within_a_step(grid: Grid) -> None:
    weights = normal(5, 40)
    found = RoundToNearest().rounded(weights, grid, group=16, importance=np.ones(40, dtype=np.float32))
    assert (found.codes.shape, found.placement.scale.shape) == ((5, 40), (5, 3))
    error = np.abs(values(found, grid, 16) - weights)
    assert (error <= 1.001 * found.placement.scale.repeat(16, axis=1)[:, :40]).all()


def test_rows_a_few_at_a_time_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, ones = normal(9, 32), np.ones(32, dtype=np.float32)
    whole = RoundToNearest().rounded(weights, MinimumGrid(3), group=16, importance=ones)
    monkeypatch.setattr(roundings, "_WEIGHTS_AT_ONCE", 64)
    parts = RoundToNearest().rounded(weights, MinimumGrid(3), group=16, importance=ones)
    assert np.array_equal(whole.codes, parts.codes)
    assert np.array_equal(whole.placement.anchor, parts.placement.anchor)
    assert np.array_equal(values(whole, MinimumGrid(3), 16), values(parts, MinimumGrid(3), 16))


class Noting(Rounding):
    """Notes what it is told of each expert."""

    def __init__(self) -> None:
        self.told: list[tuple[int, float, int]] = []
        self.index = 0

    def expert(self, index: int) -> "Noting":
        self.index = index
        return self

    def rounded(self, weights: Floats, grid: Grid, *, group: int, importance: Floats) -> Rounded:
        self.told.append((self.index, float(importance[0]), len(weights)))
        return RoundToNearest().rounded(weights, grid, group=group, importance=importance)


def test_each_expert_is_rounded_with_its_own_importance() -> None:
    weights, noting = normal(6, 8), Noting()
    found = round_stack(noting, weights, MinimumGrid(4), group=8, importance=np.array([[2.0] * 8, [3.0] * 8], dtype=np.float32))
    assert noting.told == [(0, 2.0, 3), (1, 3.0, 3)]
    assert found.codes.shape == (6, 8)
    noting.told.clear()
    round_stack(noting, weights, MinimumGrid(4), group=8, importance=np.empty((0, 8), dtype=np.float32))
    assert noting.told == [(0, 1.0, 6)]
