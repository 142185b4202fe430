import numpy as np
import pytest
import torch

from bitwright.compress.codecs.grid import Grid, MinimumGrid, SymmetricGrid, ZeroPointGrid
from bitwright.compress.codecs.rounding import rounding as roundings
from bitwright.compress.codecs.rounding.rounding import RoundToNearest, grouped, ungrouped, values
from bitwright.testing.codec_contract import normal


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
