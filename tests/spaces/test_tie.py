"""Groups of units: they cost what their units cost, and no choice of groups splits one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.errors import UserError
from bitwright.spaces import Space, Unit, alone, by_layer, tied
from tests.search.instances import instances, losses, space_of
from tests.sentences import sentence


def by_pairs(unit: Unit) -> int:
    return unit.layer // 2


@given(instances(), st.data())
def test_a_group_costs_what_its_units_cost(instance: tuple[Space, np.ndarray], data: st.DataObject) -> None:
    space, table = instance
    space = Space(space.units, space.formats, space.size_bits, np.ones_like(space.offered), space.fixed_bits, space.n_weights)
    tie = tied(space, by_pairs)
    assert [len(unit.tensors) for unit in tie.coarse.units] == [
        sum(len(u.tensors) for u in space.units if by_pairs(u) == g) for g in range(len(tie.coarse.units))
    ]
    choice = np.array([data.draw(st.integers(0, len(space.formats) - 1)) for _ in tie.coarse.units], dtype=np.int64)
    expanded = tie.expanded(choice)
    assert tie.coarse.total_bits(choice) == space.total_bits(expanded)
    assert (tie.reduced(expanded) == choice).all()
    assert tie.keeps(expanded[None]).all()
    finite = np.nan_to_num(table, nan=1.0)
    assert losses(tie.summed(finite), choice[None])[0] == pytest.approx(losses(finite, expanded[None])[0])
    assert tie.coarse.names(choice) == space.names(expanded)


@given(instances())
def test_without_ties_nothing_changes(instance: tuple[Space, np.ndarray]) -> None:
    space, _ = instance
    tie = tied(space, alone)
    assert tie.coarse.units == space.units
    assert (tie.coarse.offered == space.offered).all()
    assert (tie.coarse.size_bits == np.where(space.offered, space.size_bits, 0)).all()


def test_a_choice_that_splits_a_group_is_noticed() -> None:
    tie = tied(space_of([[8, 16]] * 4, [[True, True]] * 4), by_pairs)
    assert tie.keeps(np.array([[0, 0, 1, 1], [0, 1, 1, 1]])).tolist() == [True, False]


def test_a_group_is_offered_what_all_of_it_is_offered() -> None:
    space = space_of([[8, 16, 24]] * 2, [[True, True, False], [False, True, True]])
    assert tied(space, by_pairs).coarse.offered.tolist() == [[False, True, False]]


def test_a_group_without_a_common_format_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        tied(space_of([[8, 16]] * 2, [[True, False], [False, True]]), by_pairs)
    sentence(caught.value, "u0, u1", "--formats")


def test_layers_are_blocks_and_what_stands_alone() -> None:
    units = [Unit(name, layer, "kind", ()) for name, layer in (("embedding", -1), ("a", 0), ("b", 0), ("head", -1))]
    assert [by_layer(unit) for unit in units] == ["embedding", 0, 0, "head"]
