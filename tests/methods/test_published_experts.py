"""PMQ's integer programme against brute force (the golden instance of eight experts at three formats), its rows, and what it refuses."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from bitwright.engines import NATIVE, NATIVE_CHANNELS
from bitwright.errors import UserError
from bitwright.methods import Method
from bitwright.methods.by_name import method_named
from bitwright.methods.published_experts import in_blocks
from bitwright.search import Problem, solve, solve_with_rows
from bitwright.spaces import DROP, PRUNE, Choice, Space, Tensor, by_channels, by_expert, discover
from bitwright.spaces.tie import joined
from tests.sentences import sentence

MENU = ("INT2_ROW", "INT3_ROW", "INT4_ROW")


def mixture(n_layers: int, n_experts: int, *, others: tuple[str, ...] = ()) -> Space:
    names = [f"blk.{layer}.ffn_up_exps.{expert}.weight" for layer in range(n_layers) for expert in range(n_experts)]
    tensors = [Tensor(name, (8, 64), "F32") for name in (*others, *names)]
    return NATIVE.space(joined(discover(tensors), by_expert), menu=MENU, fixed_bytes=100, n_weights=sum(t.n_weights for t in tensors))


def table_of(space: Space, seed: int) -> np.ndarray:
    """φ · w · ε² with routing that differs as much as it does in Mixtral, and errors that fall by four with each bit."""
    rng = np.random.default_rng(seed)
    importance = rng.dirichlet(np.full(len(space.units), 2.0)) * rng.dirichlet(np.full(len(space.units), 2.0))
    bits = np.array([form.bits_per_weight for form in space.formats])
    return importance[:, None] * 4.0 ** (-2 * bits) * np.exp(rng.normal(0, 0.3, space.offered.shape))


def problem_of(space: Space, table: np.ndarray) -> Problem:
    return Problem(space, np.zeros((0, len(space.units)), dtype=np.int64), n_sequences=4, seed=0, price=lambda _: table)


def answer(method: Method, space: Space, table: np.ndarray, budget_bits: int) -> Choice:
    question = method.for_budget(problem_of(space, table), budget_bits).ask()
    choice: Choice = question.choices[0]
    return choice


def uniform_bits(space: Space, name: str) -> int:
    return int(space.total_bits(space.uniform(NATIVE.format(name))))


def brute_force(space: Space, table: np.ndarray, allowed: Any) -> float:
    menu = [np.flatnonzero(row) for row in space.offered]
    values = [(float(table[np.arange(len(c)), c].sum()), c) for c in (np.array(c) for c in product(*menu)) if allowed(np.array(c))]
    return min(value for value, _ in values)


@pytest.mark.parametrize("seed", range(3))
def test_the_programme_is_brute_force_and_the_dynamic_programme(seed: int) -> None:
    space = mixture(1, 8)
    table, budget = table_of(space, seed), uniform_bits(space, "INT3_ROW")
    fits = lambda choice: space.total_bits(choice) <= budget  # noqa: E731
    best = brute_force(space, table, fits)
    assert solve_with_rows(space, table, budget, rows=()).loss == pytest.approx(best, rel=1e-9)
    assert solve(space, table, budget).loss == pytest.approx(best, rel=1e-9)
    finest = {form.name: f for f, form in enumerate(space.formats)}
    kept = lambda choice: fits(choice) and all((choice == finest[name]).any() for name in ("INT4_ROW", "INT3_ROW"))  # noqa: E731
    found = answer(method_named("mc-moe"), space, table, budget)
    assert float(table[np.arange(8), found].sum()) == pytest.approx(brute_force(space, table, kept), rel=1e-9)
    assert kept(found)


@pytest.mark.parametrize(("method", "proxy"), [("mc-moe", "pmq"), ("mc-moe-released", "pmq-released"), ("mc-moe-global", "pmq")])
@pytest.mark.parametrize("bits", [12, 13, 16, 20])
def test_all_three_widths_are_offered_at_every_published_budget(method: str, proxy: str, bits: int) -> None:
    """MC-MoE's code: eight experts share 12 to 20 bits in widths of which each budget has all, one expert at least in either of the finer two."""
    space, names = mixture(1, 8), []
    table, rows = table_of(space, 1), np.arange(8)
    width = np.array([int(form.name[3]) if form.name.startswith("INT") else 99 for form in space.formats]) - 1  # 1, 2 and 3 as there
    budget = uniform_bits(space, "INT2_ROW") + (bits - 8) * (uniform_bits(space, "INT3_ROW") - uniform_bits(space, "INT2_ROW")) // 8
    allowed = [
        choice
        for choice in (np.array(c) for c in product(*(np.flatnonzero(row) for row in space.offered)))
        if width[choice].sum() <= bits and (width[choice] == 3).any() and (width[choice] == 2).any()
    ]
    asked = replace(problem_of(space, table), price=lambda name: (names.append(name), table)[1])
    found = method_named(method).for_budget(asked, budget).ask().choices[0]
    assert table[rows, found].sum() == pytest.approx(min(table[rows, choice].sum() for choice in allowed), rel=1e-9)
    assert names == [proxy]


def test_camera_q_has_a_tenth_three_tenths_and_six_tenths_of_each_layer_by_energy() -> None:
    tensors = [Tensor(f"blk.{layer}.ffn_up_exps.{expert}.weight", (8, 64), "F32") for layer in range(2) for expert in range(10)]
    units = joined(discover(tensors), by_expert)
    space = NATIVE.space(units, menu=("INT2_ROW", "INT4_ROW", "INT8_ROW"), fixed_bytes=0, n_weights=1)
    energy = np.random.default_rng(0).permutation(20).astype(float) * np.repeat([1.0, 1000.0], 10)
    index = {form.name: f for f, form in enumerate(space.formats)}
    wanted = np.empty(20, dtype=np.int64)
    for layer in range(2):
        order = 10 * layer + np.argsort(-energy[10 * layer : 10 * layer + 10])
        wanted[order] = [index["INT8_ROW"]] + [index["INT4_ROW"]] * 3 + [index["INT2_ROW"]] * 6
    asked = replace(problem_of(space, table_of(space, 0)), score=lambda name, _: {"camera": energy}[name])
    assert method_named("camera-q").for_budget(asked, int(space.total_bits(wanted))).ask().choices[0].tolist() == wanted.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_one_budget_for_all_blocks_is_no_worse_than_one_for_each(seed: int) -> None:
    space = mixture(4, 8)
    blocks = np.array([[4.0**unit.layer] for unit in space.units])  # which differ in importance
    table, budget = blocks * table_of(space, seed), uniform_bits(space, "INT3_ROW")
    rows = np.arange(len(space.units))
    of_blocks, of_all = (answer(method_named(name), space, table, budget) for name in ("mc-moe", "mc-moe-global"))
    assert table[rows, of_all].sum() <= table[rows, of_blocks].sum() * (1 + 1e-9)
    assert table[rows, of_all].sum() < table[rows, of_blocks].sum() * 0.99, "importance differs between blocks"
    layers = np.array([unit.layer for unit in space.units])
    spent = [int(space.size_bits[rows, of_blocks][layers == layer].sum()) for layer in range(4)]
    assert max(spent) <= (budget - space.fixed_bits) // 4
    for choice in (of_blocks, of_all):
        names = np.array([space.formats[f].name for f in choice])
        assert all({"INT4_ROW", "INT3_ROW"} <= set(names[layers == layer]) for layer in range(4))


def test_what_is_no_expert_gets_four_bits() -> None:
    space = mixture(1, 8, others=("blk.0.attn_q.weight", "token_embd.weight"))
    table = table_of(space, 0)
    found = answer(method_named("mc-moe"), space, table, uniform_bits(space, "INT3_ROW") + 2 * 8 * 64)
    names = {unit.name: space.formats[f].name for unit, f in zip(space.units, found, strict=True)}
    assert names["blk.0.attn_q"] == names["token_embd"] == "INT4_ROW"
    assert space.total_bits(found) <= uniform_bits(space, "INT3_ROW") + 2 * 8 * 64


def test_blocks_share_what_is_left_by_their_weights() -> None:
    space = mixture(2, 3)
    limits = in_blocks(space, space.fixed_bits + 6_001)[:2]
    assert [row.upper for row in limits] == [3_000, 3_000]


def test_a_budget_for_the_coarsest_alone_is_refused() -> None:
    space = mixture(1, 4)
    with pytest.raises(UserError) as caught:
        answer(method_named("mc-moe"), space, table_of(space, 0), uniform_bits(space, "INT2_ROW"))
    sentence(caught.value, "at least 1 of 4 units")


def test_a_space_without_experts_is_refused() -> None:
    units = discover([Tensor("blk.0.attn_q.weight", (8, 64), "F32")])
    space = NATIVE.space(units, menu=MENU, fixed_bytes=0, n_weights=512)
    for name in ("mc-moe", "mc-moe-global", "camera-q"):
        with pytest.raises(UserError) as caught:
            method_named(name).require_space(space)
        sentence(caught.value, name, "--target native")
        method_named(name).require_space(mixture(1, 4))


def test_a_front_leaves_out_the_budgets_that_no_plan_keeps() -> None:
    space = mixture(1, 4)
    asked = method_named("mc-moe").for_front(problem_of(space, table_of(space, 0)), 5).ask()
    assert 1 < len(asked.choices) <= 4


def test_collaborative_drops_a_quarter_and_then_chooses_formats() -> None:
    space = with_drops(mixture(2, 8))
    table, column = table_of(space, 0), space.formats.index(DROP)
    scores = np.tile(np.array([5.0, 1, 4, 2, 6, 7, 8, 3]), 2)
    asked = replace(problem_of(space, table), score=lambda *_: scores)
    found = method_named("collaborative").for_budget(asked, uniform_bits(space, "INT3_ROW")).ask().choices[0]
    assert [space.units[u].expert for u in np.flatnonzero(found == column)] == [1, 3, 1, 3]
    assert space.total_bits(found) <= uniform_bits(space, "INT3_ROW")
    assert (space.size_bits[np.arange(16), found].sum() + space.fixed_bits) > uniform_bits(space, "INT2_ROW")


def test_collaborative_needs_what_can_be_dropped() -> None:
    for name in ("collaborative", "camera-p"):
        with pytest.raises(UserError) as caught:
            method_named(name).require_space(mixture(1, 4))
        sentence(caught.value, name, "--structure experts")
        method_named(name).require_space(with_drops(mixture(1, 4)))


def with_drops(space: Space) -> Space:
    """All but the first expert of each layer may be dropped."""
    offered = space.offered.copy()
    offered[:, space.formats.index(DROP)] = [unit.expert > 0 for unit in space.units]
    return replace(space, offered=offered)


@pytest.mark.parametrize("names", [("INT2_ROW", "INT3_ROW"), ("INT3_ROW", "INT4_ROW")])
def test_eac_moe_gives_all_experts_the_largest_format_that_fits_and_the_rest_four_bits(names: tuple[str, str]) -> None:
    space = mixture(2, 4, others=("blk.0.attn_q.weight", "token_embd.weight"))
    routed = np.array([unit.expert >= 0 for unit in space.units])
    index = {form.name: f for f, form in enumerate(space.formats)}
    fitting, too_large = (np.where(routed, index[name], index["INT4_ROW"]) for name in names)
    assert (answer(method_named("eac-moe"), space, table_of(space, 0), int(space.total_bits(too_large)) - 8) == fitting).all()
    assert method_named("eac-moe").steps == ("router-calibration",)
    with pytest.raises(UserError) as caught:
        answer(method_named("eac-moe"), space, table_of(space, 0), int(space.total_bits(np.where(routed, index["INT2_ROW"], index["INT4_ROW"]))) - 8)
    sentence(caught.value, "4 bits", "--formats")


def test_eac_moe_knows_experts_in_one_tensor_and_refuses_a_model_without() -> None:
    stacked = tuple(Tensor(f"blk.0.ffn_{kind}_exps.weight", (4, 8, 64), "F32") for kind in ("up", "down"))
    for tensors, least in ((stacked, 2), ((Tensor("blk.0.attn_q.weight", (8, 64), "F32"),), 0)):
        space = NATIVE.space(discover(tensors), menu=MENU, fixed_bytes=0, n_weights=4096)
        if least:
            method_named("eac-moe").require_space(space)
            found = answer(method_named("eac-moe"), space, table_of(space, 0), uniform_bits(space, "INT3_ROW"))
            assert {space.formats[f].name for f in found} == {"INT3_ROW"}
        else:
            with pytest.raises(UserError) as caught:
                method_named("eac-moe").require_space(space)
            sentence(caught.value, "eac-moe", "mixture")


def test_camera_prunes_parts_of_experts_where_they_are_units() -> None:
    tensors = [Tensor(f"blk.0.ffn_up_exps.{expert}.weight", (160, 64), "F32") for expert in range(5)]
    parts = [part.tensor for tensor in tensors for part in NATIVE_CHANNELS.cut(tensor)]
    units = joined(discover(parts), by_channels)
    space = NATIVE_CHANNELS.space(units, menu=(*MENU, "PRUNE"), fixed_bytes=0, n_weights=1)
    scores = np.arange(len(space.units), dtype=float)[::-1]
    asked = replace(problem_of(space, table_of(space, 0)), score=lambda *_: scores)
    three, column = NATIVE_CHANNELS.format("INT3_ROW"), space.formats.index(PRUNE)
    found = method_named("camera-p").for_budget(asked, int(space.total_bits(space.uniform(three)))).ask().choices[0]
    assert np.flatnonzero(found == column).tolist() == list(range(len(units) - len(units) // 5, len(units)))
    assert {space.formats[f] for f in found[found != column]} == {three}
