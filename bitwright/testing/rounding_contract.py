"""Contract tests of roundings, the words of `--codec`. Inherit from `RoundingContract` and define the rounding under test:

class TestMine(RoundingContract):
    def rounding(self):
        return MyRounding()
"""

from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch

from bitwright.compress import Floats, Grid, MinimumGrid, Rounded, Rounding, RoundToNearest, SymmetricGrid, ZeroPointGrid, grid_values
from bitwright.testing.codec_contract import normal

GRIDS: tuple[Grid, ...] = (MinimumGrid(3), ZeroPointGrid(3, torch.bfloat16), SymmetricGrid(3, torch.float32))
GROUP, N_COLUMNS = 32, 70  # the last group of a row is short


def uneven() -> Floats:
    """Return the importance of channels `(n_columns,)` that differ by some hundredfold."""
    return np.geomspace(0.1, 30, N_COLUMNS, dtype=np.float32)


class RoundingContract(ABC):
    """Contract of a rounding: codes that the grid has, rows that are independent, and no more than `worst` times the squared error, weighted by the
    importance, of rounding to the nearest level over the whole range of a group.
    """

    worst = 1.05

    @abstractmethod
    def rounding(self) -> Rounding:
        """Return the rounding under test."""

    def made(self, weights: Floats, grid: Grid, importance: Floats) -> Rounded:
        """Return the codes and levels of `weights` `(n_rows, n_columns)`."""
        return self.rounding().for_tensor("layer").rounded(weights, grid, group=GROUP, importance=importance)

    @pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: type(grid).__name__)
    def test_codes_are_those_of_the_grid(self, grid: Grid) -> None:
        """Require codes `(n_rows, n_columns)` of the grid, and levels for each group."""
        found = self.made(normal(5, N_COLUMNS), grid, uneven())
        assert (str(found.codes.dtype), found.codes.shape) == ("uint8", (5, N_COLUMNS))
        assert found.codes.max() < grid.n_levels
        assert all(part.shape == (5, 3) for part in found.placement.parts)
        assert np.isfinite(grid_values(found, grid, GROUP)).all()

    @pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: type(grid).__name__)
    def test_is_about_as_good_as_round_to_nearest(self, grid: Grid) -> None:
        """Require at most `worst` times the weighted squared error of rounding to nearest."""
        weights, importance = normal(16, N_COLUMNS), uneven()
        nearest = RoundToNearest().rounded(weights, grid, group=GROUP, importance=importance)
        mine, theirs = (
            float((importance * (grid_values(found, grid, GROUP) - weights) ** 2).sum()) for found in (self.made(weights, grid, importance), nearest)
        )
        assert 0 < mine <= self.worst * theirs

    def test_rows_are_rounded_one_by_one(self) -> None:
        """Require the codes of a matrix to be those of its rows."""
        weights = normal(6, N_COLUMNS)
        whole = self.made(weights, GRIDS[0], uneven())
        alone = np.concatenate([self.made(weights[i : i + 1], GRIDS[0], uneven()).codes for i in range(6)])
        assert np.array_equal(whole.codes, alone)

    def test_rounds_the_same_twice_and_leaves_its_input_alone(self) -> None:
        """Require equal codes for equal weights, and weights and importance left unchanged."""
        weights, importance = normal(4, N_COLUMNS), uneven()
        before = weights.copy(), importance.copy()
        first, second = (self.made(weights, GRIDS[0], importance) for _ in range(2))
        assert np.array_equal(first.codes, second.codes)
        assert np.array_equal(weights, before[0])
        assert np.array_equal(importance, before[1])

    @pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
    def test_equal_weights_come_back(self, value: float) -> None:
        """Require equal weights to come back to within a thousandth."""
        weights = np.full((2, N_COLUMNS), value, dtype=np.float32)
        found = grid_values(self.made(weights, GRIDS[0], np.ones(N_COLUMNS, dtype=np.float32)), GRIDS[0], GROUP)
        np.testing.assert_allclose(found, weights, rtol=1e-3)
