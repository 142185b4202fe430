"""Refits by least squares beside a general solver, and what they gain."""

import numpy as np
import pytest
import torch

from bitwright.compress import Floats, Grid, MinimumGrid, Rounded, SymmetricGrid, ZeroPointGrid, grid_values, rounding_named
from bitwright.compress.codecs.grid import Float8Grid, SignGrid
from bitwright.compress.codecs.rounding.gptq import Gptq
from bitwright.compress.codecs.rounding.least_squares import refitted_levels, refitted_weights
from bitwright.compress.codecs.rounding.pruning import by_wanda
from bitwright.compress.codecs.rounding.refitted import Refitted
from bitwright.spaces import NOfM
from bitwright.testing.codec_contract import normal
from bitwright.testing.rounding_contract import RoundingContract

GRIDS: tuple[Grid, ...] = (MinimumGrid(2), ZeroPointGrid(3, torch.bfloat16), SymmetricGrid(3, torch.float32), SignGrid(), Float8Grid(torch.float32))
GROUP = 16


class TestRefittedWithoutMoments(RoundingContract):
    def rounding(self) -> Refitted:
        return Refitted(Gptq({}))


def inputs(n_tokens: int, n_columns: int) -> Floats:
    rng = np.random.default_rng(3)
    mixed = rng.normal(size=(n_columns, n_columns)) * np.geomspace(1, 0.1, n_columns)[:, None]
    return (rng.normal(size=(n_tokens, n_columns)) @ mixed).astype(np.float32)


def moments(n_columns: int) -> Floats:
    x = inputs(300, n_columns)
    return (x.T @ x)[None]


def loss(found: Rounded, weights: Floats, grid: Grid) -> Floats:
    left = grid_values(found, grid, GROUP) - weights
    return ((left @ moments(weights.shape[1])[0]) * left).sum(axis=1)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: type(grid).__name__)
def test_no_row_gets_worse_and_most_get_better(grid: Grid) -> None:
    weights, known = normal(12, 40), {"t": moments(40)}
    before = Gptq(known).for_tensor("t").rounded(weights, grid, group=GROUP, importance=np.ones(40, dtype=np.float32))
    after = Refitted(Gptq(known)).for_tensor("t").rounded(weights, grid, group=GROUP, importance=np.ones(40, dtype=np.float32))
    assert np.array_equal(before.codes, after.codes)
    assert (loss(after, weights, grid) <= loss(before, weights, grid)).all()
    assert (loss(after, weights, grid) < loss(before, weights, grid)).mean() > 0.7
    assert (after.placement.scale >= 0).all()


def test_levels_are_those_of_a_general_solver() -> None:
    weights, h, grid = normal(4, 40), moments(40)[0].astype(np.float64), MinimumGrid(2)
    coarse = Gptq({}).for_tensor("t").rounded(weights, grid, group=GROUP, importance=np.ones(40, dtype=np.float32))
    found = refitted_levels(coarse, weights, np.ones(weights.shape, dtype=bool), grid, group=GROUP, moments=h)
    root = np.linalg.cholesky(h).T
    for row in range(4):
        of_group = np.eye(3)[np.arange(40) // GROUP]
        design = np.concatenate([of_group * coarse.codes[row][:, None], of_group], axis=1)
        scale_and_minimum = np.linalg.lstsq(root @ design, root @ weights[row].astype(np.float64), rcond=None)[0]
        stored = np.concatenate([found.placement.scale[row], found.placement.anchor[row]])
        np.testing.assert_allclose(stored, scale_and_minimum, rtol=5e-3, atol=5e-3)


def test_weights_that_are_kept_make_up_for_the_others() -> None:
    weights, h = normal(5, 32), moments(32)[0].astype(np.float64)
    pruned = by_wanda(weights, NOfM(2, 4), np.ones(32, dtype=np.float32))
    found = refitted_weights(weights, pruned, h, damping=1e-6)
    before, gradient = (np.abs((w - weights).astype(np.float64) @ h)[found.mask].max() for w in (pruned.weights * pruned.mask, found.weights))
    assert np.array_equal(found.mask, pruned.mask)
    assert not found.weights[~found.mask].any()
    assert gradient < 0.05 * before


def test_nothing_is_refitted_to_inputs_that_were_never_there() -> None:
    weights, nothing = normal(2, 32), np.zeros((32, 32))
    pruned = by_wanda(weights, NOfM(2, 4), np.ones(32, dtype=np.float32))
    assert refitted_weights(weights, pruned, nothing, damping=0.01) is pruned
    rounding = rounding_named("gptq+clip+refit", {"t": np.zeros((1, 32, 32), dtype=np.float32)}).for_tensor("t")
    found = rounding.rounded(weights, MinimumGrid(3), group=GROUP, importance=np.ones(32, dtype=np.float32))
    assert np.isfinite(grid_values(found, MinimumGrid(3), GROUP)).all()
