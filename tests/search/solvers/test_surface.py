"""The front on three axes against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.search import hull, hypervolume, nondominated, surface
from bitwright.spaces import Space
from tests.search.instances import Table, every_choice, instances, language_model, losses, thorough

pytestmark = pytest.mark.slow


@given(instances(), st.integers(0, 2**32))
@thorough
def test_no_choice_is_better_on_all_axes(instance: tuple[Space, Table], seed: int) -> None:
    space, table = instance
    cost = np.random.default_rng(seed).uniform(0, 1, table.shape)
    found = surface(space, table, cost)
    units = np.arange(len(space.units))
    points = np.stack([found.size_bits, found.taken, found.loss], axis=1)
    assert nondominated(points).all()
    assert np.allclose(found.taken, cost[units, found.choices].sum(axis=1))
    assert (found.size_bits == space.total_bits(found.choices)).all()
    choices = every_choice(space)
    all_points = np.stack([space.total_bits(choices), cost[units, choices].sum(axis=1), losses(table, choices)], axis=1)
    for point in points:
        assert not (all_points < point - 1e-9).all(axis=1).any()
    flat = hull(space, table)
    for size, loss in zip(flat.size_bits, flat.loss, strict=True):
        assert (found.loss[found.size_bits <= size].min(initial=np.inf)) <= loss + 1e-9


def test_it_fills_most_of_what_the_true_front_does() -> None:
    space, table = language_model(3, shape_aware=True)
    rng = np.random.default_rng(1)
    units = rng.choice(len(space.units), 6, replace=False)
    few = Space(tuple(space.units[u] for u in units), space.formats, space.size_bits[units], space.offered[units], 0, 1)
    few = few.narrowed(few.offered & (np.arange(len(space.formats)) % 2 == 1))
    table, cost = table[units], few.size_bits * rng.uniform(0.5, 2, len(few.formats))
    choices, rows = every_choice(few), np.arange(6)
    everything = np.stack([few.total_bits(choices), cost[rows, choices].sum(axis=1), losses(table, choices)], axis=1).astype(np.float64)
    reference = everything.max(axis=0) * 1.01
    scale = reference / everything.min(axis=0).clip(1e-12)
    assert (scale > 1).all()
    found = surface(few, table, cost)
    points = np.stack([found.size_bits, found.taken, found.loss], axis=1)
    true = everything[nondominated(everything)]
    assert hypervolume(points, reference) > 0.9 * hypervolume(true, reference)
