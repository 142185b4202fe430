"""Ranks and choices, random steps, and draws of a given size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.search.solvers.format_ranks import FormatRanks, lowered, raised, random_ranks
from bitwright.spaces import Space
from tests.search.instances import Table, every_choice, instances, space_of


@given(instances())
@settings(deadline=None)
def test_heights_are_ranks_of_size_among_what_is_offered(instance: tuple[Space, Table]) -> None:
    space, format_ranks, choices = instance[0], FormatRanks(instance[0]), every_choice(instance[0])
    ranks = format_ranks.ranks(choices)
    assert np.array_equal(format_ranks.choices(ranks), choices)
    assert np.array_equal(format_ranks.spent(ranks), space.total_bits(choices) - space.total_bits(space.smallest()))
    assert ((ranks >= 0) & (ranks <= format_ranks.top)).all()
    for unit, offered in enumerate(space.offered):
        bits = space.size_bits[
            unit, format_ranks.choices(np.tile(np.arange(offered.sum())[:, None], len(space.units)).clip(max=format_ranks.top))[:, unit]
        ]
        assert (np.diff(bits) >= 0).all()


@given(instances(), st.floats(0.0, 1.2), st.integers(0, 2**32))
@settings(deadline=None)
def test_lowering_ends_within_the_room_and_raising_when_nothing_fits(instance: tuple[Space, Table], share: float, seed: int) -> None:
    format_ranks, rng = FormatRanks(instance[0]), np.random.default_rng(seed)
    room = int(share * format_ranks.spent(format_ranks.top))
    low = lowered(format_ranks, format_ranks.top, room, rng)
    assert format_ranks.spent(low) <= room
    high = raised(format_ranks, low, room, rng)
    assert (high >= low).all()
    assert format_ranks.spent(high) <= room < format_ranks.spent(high) + format_ranks.step_up(high).min()


@given(instances(), st.floats(0.0, 1.0))
@settings(deadline=None)
def test_draws_have_the_size_that_is_aimed_at(instance: tuple[Space, Table], share: float) -> None:
    format_ranks = FormatRanks(instance[0])
    target = share * float(format_ranks.spent(format_ranks.top))
    spent = format_ranks.spent(random_ranks(format_ranks, target, 2_000, np.random.default_rng(0)))
    assert (
        abs(spent.mean() - target) <= 5 * (spent.std() / 2_000**0.5) + 1e-6 * (target + 1) + 1e-2 * float(format_ranks.spent(format_ranks.top)) / 10
    )


def test_draws_of_one_size_are_equally_likely() -> None:
    format_ranks = FormatRanks(space_of([[0, 10, 20], [0, 10, 30], [0, 20, 30]], [[True] * 3] * 3))
    ranks = random_ranks(format_ranks, 20.0, 60_000, np.random.default_rng(0))
    _, counts = np.unique(ranks[format_ranks.spent(ranks) == 30], axis=0, return_counts=True)
    assert len(counts) == 5
    assert counts / counts.mean() == pytest.approx(np.ones(5), abs=5 / counts.mean() ** 0.5)
