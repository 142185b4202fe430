"""An expert that the text hardly visits is not free."""

from dataclasses import replace

import numpy as np
import pytest

from bitwright.engines import NATIVE
from bitwright.errors import TextError
from bitwright.objectives import Routing
from bitwright.predictors import MINIMUM_TOKENS, floored_table, rare_experts
from bitwright.spaces import Space, Tensor, by_expert, discover
from bitwright.spaces.tie import joined
from tests.sentences import sentence

MENU = ("INT2_G32", "INT4_G32")


def space() -> Space:
    """Two layers of three experts, and a matrix that is no expert."""
    names = [f"blk.{layer}.ffn_{kind}_exps.{expert}.weight" for layer in range(2) for expert in range(3) for kind in ("up", "down")]
    tensors = [Tensor("blk.0.attn_q.weight", (32, 32), "F32"), *(Tensor(name, (32, 32), "F32") for name in names)]
    return NATIVE.space(joined(discover(tensors), by_expert), menu=MENU, fixed_bytes=0, n_weights=13 * 1024)


def routing(n_chosen: list[int]) -> Routing:
    n = len(n_chosen)
    layer, expert, zeros = np.repeat([0, 1], 3), np.tile(np.arange(3), 2), np.zeros(n)
    return Routing(layer, expert, np.full(n, 1000), np.full(n, 1), np.array(n_chosen), zeros, zeros)


def test_the_floor_of_a_rare_expert_is_the_cost_of_the_fewest_tokens_in_the_others() -> None:
    made = space()
    offered = np.flatnonzero(made.offered[0])
    table = np.full(made.offered.shape, np.nan)
    table[:, offered] = np.array([9, 0, 4, 1, 1, 2, 3])[:, None] * [0.02, 0.01]
    found = floored_table(table, made, routing([0, 400, 200, 100, 100, 100]))
    of_a_token = np.median([4 * 0.01 / 400, 1 * 0.01 / 200])
    np.testing.assert_allclose(found[1, offered], MINIMUM_TOKENS * of_a_token * np.array([2, 1]))
    rest = [0, *range(2, 7)]
    np.testing.assert_array_equal(found[rest], table[rest])
    assert np.isnan(found[np.isnan(table)]).all()


def test_a_price_above_the_floor_stays() -> None:
    made = space()
    table = np.where(made.offered, 5.0, np.nan)
    np.testing.assert_array_equal(floored_table(table, made, routing([1, 400, 200, 100, 100, 100])), table)


def test_experts_are_rare_below_the_minimum() -> None:
    assert rare_experts(routing([MINIMUM_TOKENS - 1, MINIMUM_TOKENS, 99, 0, 99, 99])) == ["blk.0.expert.0", "blk.1.expert.0"]


def test_a_layer_that_is_not_visited_is_refused() -> None:
    made = space()
    with pytest.raises(TextError) as caught:
        floored_table(np.where(made.offered, 1.0, np.nan), made, routing([100, 100, 100, 3, 0, 1]))
    sentence(caught.value, "layer 1", "more than 3", str(MINIMUM_TOKENS))


def test_a_space_without_experts_of_its_own_needs_no_routing() -> None:
    made = space()
    dense = replace(made, units=tuple(replace(unit, expert=-1) for unit in made.units))
    table = np.where(made.offered, 1.0, np.nan)
    np.testing.assert_array_equal(floored_table(table, dense, routing([0] * 6)), table)
