"""The ladder of hull steps: what its order promises, and that units taken in parts give the same one."""

import numpy as np
import pytest
from hypothesis import given, settings

from bitwright.search.solvers import relaxed_front as ladder
from bitwright.search.solvers.instance import checked_table, extra_bits
from bitwright.search.solvers.relaxed_front import climb
from bitwright.spaces import Space
from tests.search.instances import Table, instances, language_model


@given(instances())
@settings(deadline=None)
def test_steps_grow_dearer_and_those_of_a_unit_come_in_their_order(instance: tuple[Space, Table]) -> None:
    space, table = instance
    loss, extra = checked_table(space, table), extra_bits(space)
    found = climb(extra, loss, space.offered)
    assert (np.diff(found.slope) >= 0).all()
    assert (found.saved > 0).all()
    stand = found.start.copy()
    for unit, option, added, saved in zip(found.unit, found.option, found.added_bits, found.saved, strict=True):
        assert extra[unit, option] - extra[unit, stand[unit]] == added > 0
        assert loss[unit, stand[unit]] - loss[unit, option] == saved
        stand[unit] = option
    least = np.where(space.offered, loss, np.inf).min(axis=1)
    assert (loss[np.arange(len(loss)), stand] == least).all()


def test_parts_of_units_make_one_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    space, table = language_model(4, shape_aware=True)
    whole = climb(extra_bits(space), table, space.offered)
    monkeypatch.setattr(ladder, "_PART", 50)
    parts = climb(extra_bits(space), table, space.offered)
    assert (parts.start == whole.start).all()
    assert (parts.slope == whole.slope).all()
    assert set(zip(parts.unit, parts.option, parts.added_bits, strict=True)) == set(zip(whole.unit, whole.option, whole.added_bits, strict=True))
