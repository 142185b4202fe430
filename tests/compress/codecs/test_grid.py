"""Placement of levels, compared with a search over all placements."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.compress.codecs.grid import Grid, MinimumGrid, SymmetricGrid, ZeroPointGrid

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
grids = st.one_of(
    st.builds(MinimumGrid, st.integers(1, 8)),
    st.builds(ZeroPointGrid, st.integers(1, 8), st.sampled_from(DTYPES)),
    st.builds(SymmetricGrid, st.integers(2, 8), st.sampled_from(DTYPES)),
)


def groups(seed: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(5, 24)) + shift).astype(np.float32)


def levels(grid: Grid, placement) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Every level of every group `(n_groups, n_levels)`."""
    codes = np.tile(np.arange(grid.n_levels, dtype=np.uint8), (len(placement.scale), 1))
    return grid.values(codes, placement)


@given(grid=grids, seed=st.integers(0, 99), shift=st.floats(-4, 4))
@settings(deadline=None, max_examples=80)
def test_every_weight_gets_the_nearest_level(grid: Grid, seed: int, shift: float) -> None:
    weights = groups(seed, shift)
    placement = grid.between(weights.min(axis=-1), weights.max(axis=-1))
    back = grid.values(grid.nearest(weights, placement), placement)
    least = np.abs(levels(grid, placement)[:, None, :] - weights[..., None]).min(axis=-1)
    slack = 1e-5 * np.abs(weights).max()
    assert (np.abs(back - weights) <= least + slack).all()


@given(grid=grids, seed=st.integers(0, 99), shift=st.floats(-4, 4))
@settings(deadline=None, max_examples=80)
def test_a_whole_range_is_covered_to_half_a_step(grid: Grid, seed: int, shift: float) -> None:
    weights = groups(seed, shift)
    placement = grid.between(weights.min(axis=-1), weights.max(axis=-1))
    error = np.abs(grid.values(grid.nearest(weights, placement), placement) - weights)
    # symmetric levels end half a step below the largest weight, a zero point moves them by up to half a step; and the scale is rounded
    assert (error <= 1.01 * placement.scale[:, None] + 0.01 * np.abs(weights).max()).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_stored_is_of_the_type_and_zero_is_a_level(dtype: torch.dtype) -> None:
    weights = groups(0, 0.3)
    for grid in (ZeroPointGrid(4, dtype), SymmetricGrid(4, dtype)):
        placement = grid.between(weights.min(axis=-1), weights.max(axis=-1))
        assert np.array_equal(torch.from_numpy(placement.scale).to(dtype).float().numpy(), placement.scale)
        assert np.array_equal(placement.anchor, placement.anchor.round())
        assert ((placement.anchor >= 0) & (placement.anchor < 16)).all()
        assert (levels(grid, placement) == 0).any(axis=-1).all()


@pytest.mark.parametrize("grid", [MinimumGrid(3), ZeroPointGrid(3, torch.float32), SymmetricGrid(3, torch.float32)])
def test_code_zero_lies_at_the_offset(grid: Grid) -> None:
    weights = groups(1)
    placement = grid.between(weights.min(axis=-1), weights.max(axis=-1))
    np.testing.assert_allclose(levels(grid, placement)[:, 0], placement.offset, rtol=1e-6)


def test_levels_move_as_far_as_they_can() -> None:
    weights = groups(2)
    low, high = weights.min(axis=-1), weights.max(axis=-1)
    free = MinimumGrid(3)
    moved = free.moved(free.between(low, high), low + 0.01)
    np.testing.assert_allclose(moved.offset, low + 0.01, rtol=1e-3)
    whole = ZeroPointGrid(3, torch.float32)
    before = whole.between(low, high)
    assert np.array_equal(whole.moved(before, before.offset + 0.4 * before.scale).anchor, before.anchor)
    assert np.array_equal(whole.moved(before, before.offset + 0.6 * before.scale).anchor, before.anchor - 1)
    mirrored = SymmetricGrid(3, torch.float32)
    assert mirrored.moved(mirrored.between(low, high), high).offset.tolist() == mirrored.between(low, high).offset.tolist()


@pytest.mark.parametrize("grid", [MinimumGrid(2), ZeroPointGrid(2, torch.bfloat16), SymmetricGrid(2, torch.float16)])
def test_equal_weights_and_zeros_stay(grid: Grid) -> None:
    for value in (0.0, 0.5, -0.5):
        weights = np.full((1, 8), value, dtype=np.float32)
        placement = grid.between(weights.min(axis=-1), weights.max(axis=-1))
        back = grid.values(grid.nearest(weights, placement), placement)
        assert np.isfinite(back).all()
        np.testing.assert_allclose(back, weights, atol=0.0 if not value else placement.scale.max() / 2 + 1e-3)


def test_a_part_of_a_placement_is_that_of_those_groups() -> None:
    weights = groups(3)
    placement = MinimumGrid(4).between(weights.min(axis=-1), weights.max(axis=-1))
    assert placement[1:3].scale.tolist() == placement.scale[1:3].tolist()
    assert placement[1:3].anchor.tolist() == placement.anchor[1:3].tolist()
    assert placement[1:3].offset.tolist() == placement.offset[1:3].tolist()
