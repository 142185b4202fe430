"""Groups of units: they cost what their units cost, and no choice of groups splits one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.errors import UserError
from bitwright.spaces import Space, Tensor, Unit, alone, by_expert, by_layer, discover, tied
from bitwright.spaces.tie import joined
from tests.search.instances import instances, losses, space_of
from tests.sentences import sentence


def by_pairs(unit: Unit) -> str:
    return f"pair.{unit.layer // 2}"


@given(instances(), st.data())
def test_a_group_costs_what_its_units_cost(instance: tuple[Space, np.ndarray], data: st.DataObject) -> None:
    space, table = instance
    space = Space(space.units, space.formats, space.size_bits, np.ones_like(space.offered), space.fixed_bits, space.n_weights)
    tie = tied(space, by_pairs)
    assert [len(unit.tensors) for unit in tie.coarse.units] == [
        sum(len(u.tensors) for u in space.units if by_pairs(u) == g) for g in dict.fromkeys(map(by_pairs, space.units))
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
    layers = {"embedding": -1, "blk.0.a": 0, "blk.0.b": 0, "model.layers.1.b": 1, "head": -1}
    units = [Unit(name, layer, "kind", ()) for name, layer in layers.items()]
    assert [by_layer(unit) for unit in units] == ["embedding", "blk.0", "blk.0", "model.layers.1", "head"]


def test_an_expert_is_its_matrices_and_everything_else_alone() -> None:
    tensors = [Tensor(f"blk.1.ffn_{kind}_exps.{expert}.weight", (8, 32), "F32") for expert in range(2) for kind in ("gate", "up", "down")]
    router = Tensor("blk.1.attn_q.weight", (8, 32), "F32")
    units = joined(discover([*tensors, router]), by_expert)
    assert [(unit.name, unit.layer, unit.kind, unit.expert, len(unit.tensors)) for unit in units] == [
        ("blk.1.expert.0", 1, "expert", 0, 3),
        ("blk.1.expert.1", 1, "expert", 1, 3),
        ("blk.1.attn_q", 1, "attn_q", -1, 1),
    ]


def test_what_a_group_has_in_common_stays() -> None:
    q, k, other = Unit("blk.0.attn_q", 0, "attn_q", ()), Unit("blk.0.attn_k", 0, "attn_k", ()), Unit("blk.1.attn_q", 1, "attn_q", ())
    (both,) = joined((q, k), lambda _: "both")
    assert (both.name, both.layer, both.kind, both.expert) == ("both", 0, "tie", -1)
    (same,) = joined((q, other), lambda _: "same")
    assert (same.layer, same.kind) == (-1, "attn_q")
