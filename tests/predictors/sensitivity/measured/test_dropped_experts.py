"""Measured losses of dropped experts, and spaces in which every choice is valid."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Levels, Model, integer_codec
from bitwright.engines import NATIVE, model_as_held
from bitwright.objectives import Routing
from bitwright.predictors import drop_losses, limit_drops, may_drop, moved, stored, with_drops
from bitwright.predictors.sensitivity.text_divergence import open_divergence
from bitwright.spaces import DROP, Space, Tensor, by_expert, discover
from bitwright.spaces.tie import joined
from tests.measuring import random_tokens
from tests.predictors.subjects import opened

MENU = ("INT2_G32", "INT4_G32", "DROP")


def space_of(tensors: tuple[Tensor, ...]) -> Space:
    return NATIVE.space(joined(discover(tensors), by_expert), menu=MENU, fixed_bytes=0, n_weights=1)


def layers(n_experts: int = 4) -> Space:
    names = [f"blk.{layer}.ffn_up_exps.{expert}.weight" for layer in range(2) for expert in range(n_experts)]
    return space_of((Tensor("token_embd.weight", (8, 64), "F32"), *(Tensor(name, (8, 64), "F32") for name in names)))


def routing(n_experts: int, n_at_once: int) -> Routing:
    layer, expert = np.repeat([0, 1], n_experts), np.tile(np.arange(n_experts), 2)
    n = 2 * n_experts
    return Routing(layer, expert, np.full(n, 100), np.full(n, n_at_once), np.full(n, 50), np.ones(n), np.ones(n))


@pytest.mark.parametrize(("n_at_once", "n_droppable"), [(1, 3), (2, 2), (4, 0)])
def test_a_layer_keeps_as_many_experts_as_a_token_uses(n_at_once: int, n_droppable: int) -> None:
    space, column = layers(), len(NATIVE.formats) - 1
    losses = np.array([np.nan, 0.3, 0.1, 0.4, 0.2, 0.2, 0.2, 0.9, 0.1])
    found = limit_drops(space, losses, routing=routing(4, n_at_once), heirs={})
    named = {found.units[u].name for u in np.flatnonzero(found.offered[:, column])}
    order = (
        ("blk.0.ffn_up_exps.1", "blk.0.ffn_up_exps.3", "blk.0.ffn_up_exps.0"),
        ("blk.1.ffn_up_exps.3", "blk.1.ffn_up_exps.0", "blk.1.ffn_up_exps.1"),
    )
    assert {name.replace("expert.", "ffn_up_exps.") for name in named} == {name for layer in order for name in layer[:n_droppable]}
    menu = [np.flatnonzero(row) for row in found.offered]
    for choice in product(*menu):
        for layer in range(2):
            assert sum(f != column for f, unit in zip(choice, found.units, strict=True) if unit.layer == layer) >= n_at_once
    assert may_drop(found) == (n_droppable > 0)
    assert not may_drop(stored(found))
    assert (stored(found).offered[:, :column] == space.offered[:, :column]).all()


def test_of_two_twins_only_one_may_be_dropped() -> None:
    losses = np.array([np.nan, 0.0, 0.3, 0.0, 0.2, 0.4, 0.0, 0.3, 0.0])
    found = limit_drops(layers(), losses, routing=routing(4, 2), heirs={(0, 0): 2, (0, 2): 0, (1, 1): 3, (1, 3): 1})
    named = [found.units[u].name for u in np.flatnonzero(found.offered[:, found.formats.index(DROP)])]
    assert named == [f"blk.{layer}.ffn_up_exps.{expert}" for layer, expert in ((0, 0), (0, 3), (1, 1), (1, 2))]


def test_it_is_the_divergence_without_the_expert(mixtral: Model, tmp_path: Path) -> None:
    apart = model_as_held(mixtral, NATIVE)
    space, levels, tokens = space_of(apart.tensors), Levels(tmp_path / "levels", apart.source, integer_codec(), {}), random_tokens(4, 8)
    with opened(apart, levels, space=space, tokens=tokens, store=tmp_path / "a") as subject:
        losses = drop_losses(subject)
        with open_divergence(subject) as divergence:
            again = [divergence.of_one(u, space.formats.index(DROP)) for u, unit in enumerate(space.units) if unit.expert >= 0]
    experts = np.array([unit.expert >= 0 for unit in space.units])
    assert np.isnan(losses[~experts]).all()
    assert (losses[experts] > 1e-4).all()
    np.testing.assert_array_equal(losses[experts], again)


def test_the_table_takes_the_losses_where_dropping_is_offered() -> None:
    space = limit_drops(layers(), np.arange(9.0), routing=routing(4, 2), heirs={})
    table = np.where(stored(space).offered, 1.0, np.nan)
    found, column = with_drops(table, space, np.arange(9.0)), space.formats.index(DROP)
    np.testing.assert_array_equal(np.isnan(found), ~space.offered)
    np.testing.assert_array_equal(found[space.offered[:, column], column], [1, 2, 5, 6])


def test_around_a_choice_dropping_is_as_the_table_says() -> None:
    space = limit_drops(layers(), np.arange(9.0), routing=routing(4, 2), heirs={})
    column = space.formats.index(DROP)
    table = np.where(space.offered, np.arange(len(space.formats)) * 0.1 + np.arange(9)[:, None], np.nan)
    choice = space.smallest()
    assert (choice == column).sum() == 4
    choice[1] = space.formats.index(NATIVE.format("INT4_G32"))
    slopes, curvatures = np.full(table.shape, 7.0), np.full(table.shape, 3.0)
    found, bent = moved(slopes, curvatures, choice, table=table, space=space)
    at_drop = choice == column
    rows = np.arange(9)
    expected = table - table[rows, choice][:, None]
    np.testing.assert_allclose(found[at_drop][space.offered[at_drop]], expected[at_drop][space.offered[at_drop]])
    np.testing.assert_allclose(found[1, column], expected[1, column])
    assert (found[~at_drop][:, :column] == 7).all()
    assert (bent[at_drop] == 0).all()
    assert (bent[~at_drop][:, :column] == 3).all()
    assert np.isfinite(found).all()
