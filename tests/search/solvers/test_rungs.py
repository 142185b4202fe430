"""Heights and choices, random steps, and draws of a given size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.search.solvers.rungs import Rungs, drawn, lowered, raised
from bitwright.spaces import Space
from tests.search.instances import Table, every_choice, instances, space_of


@given(instances())
@settings(deadline=None)
def test_heights_are_ranks_of_size_among_what_is_offered(instance: tuple[Space, Table]) -> None:
    space, rungs, choices = instance[0], Rungs(instance[0]), every_choice(instance[0])
    heights = rungs.of(choices)
    assert np.array_equal(rungs.choices(heights), choices)
    assert np.array_equal(rungs.spent(heights), space.total_bits(choices) - space.total_bits(space.smallest()))
    assert ((heights >= 0) & (heights <= rungs.top)).all()
    for unit, offered in enumerate(space.offered):
        bits = space.size_bits[unit, rungs.choices(np.tile(np.arange(offered.sum())[:, None], len(space.units)).clip(max=rungs.top))[:, unit]]
        assert (np.diff(bits) >= 0).all()


@given(instances(), st.floats(0.0, 1.2), st.integers(0, 2**32))
@settings(deadline=None)
def test_lowering_ends_within_the_room_and_raising_when_nothing_fits(instance: tuple[Space, Table], share: float, seed: int) -> None:
    rungs, rng = Rungs(instance[0]), np.random.default_rng(seed)
    room = int(share * rungs.spent(rungs.top))
    low = lowered(rungs, rungs.top, room, rng)
    assert rungs.spent(low) <= room
    high = raised(rungs, low, room, rng)
    assert (high >= low).all()
    assert rungs.spent(high) <= room < rungs.spent(high) + rungs.step_up(high).min()


@given(instances(), st.floats(0.0, 1.0))
@settings(deadline=None)
def test_draws_have_the_size_that_is_aimed_at(instance: tuple[Space, Table], share: float) -> None:
    rungs = Rungs(instance[0])
    target = share * float(rungs.spent(rungs.top))
    spent = rungs.spent(drawn(rungs, target, 2_000, np.random.default_rng(0)))
    assert abs(spent.mean() - target) <= 5 * (spent.std() / 2_000**0.5) + 1e-6 * (target + 1) + 1e-2 * float(rungs.spent(rungs.top)) / 10


def test_draws_of_one_size_are_equally_likely() -> None:
    rungs = Rungs(space_of([[0, 10, 20], [0, 10, 30], [0, 20, 30]], [[True] * 3] * 3))
    heights = drawn(rungs, 20.0, 60_000, np.random.default_rng(0))
    _, counts = np.unique(heights[rungs.spent(heights) == 30], axis=0, return_counts=True)
    assert len(counts) == 5
    assert counts / counts.mean() == pytest.approx(np.ones(5), abs=5 / counts.mean() ** 0.5)
