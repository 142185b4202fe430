from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.compress import Source, open_source
from bitwright.devices import Latency
from bitwright.devices.device import read_device
from bitwright.engines import LLAMA_CPP, NATIVE, as_held
from bitwright.errors import ObjectiveError
from bitwright.objectives import NO_ROUTING, CostObjective, Reading, Routing, bits_cost, bytes_cost, reading
from bitwright.spaces import DROP, Space, by_expert, discover
from bitwright.spaces.tie import joined
from tests.compress import tiny_models as tiny
from tests.model_fixtures import saved
from tests.sentences import sentence

N_CHOSEN = np.array([60, 30, 10, 0])
DEVICE = read_device("raspberry-pi-5-8gb")


def routing(n_at_once: int, n_layers: int = 2) -> Routing:
    n, zeros = 4 * n_layers, np.zeros(4 * n_layers)
    layer, expert = np.repeat(np.arange(n_layers), 4), np.tile(np.arange(4), n_layers)
    return Routing(layer, expert, np.full(n, 100 // n_at_once), np.full(n, n_at_once), np.tile(N_CHOSEN, n_layers), zeros, zeros)


def apart(source: Source, menu: tuple[str, ...], n_at_once: int = 1) -> Reading:
    held = as_held(source, NATIVE)
    units = joined(discover(held.tensors), by_expert)
    space = NATIVE.space(units, menu=menu, fixed_bytes=1000, n_weights=1)
    return reading(space, held, routing(n_at_once))


def whole(source: Source, menu: tuple[str, ...] = ("Q8_0", "Q4_0")) -> Reading:
    space = LLAMA_CPP.space(discover(source.tensors), menu=menu, fixed_bytes=1000, n_weights=sum(t.n_weights for t in source.tensors))
    return reading(space, source, NO_ROUTING)


def kept(source: Source) -> int:
    """Bytes of the vectors and routers, which are no units."""
    return sum(source.stored(t).nbytes for t in source.tensors if len(t.shape) == 1 or "ffn_gate_inp" in t.name)


def test_all_of_a_model_with_one_embedding_is_read_and_of_another_one_row(llama_tied: Path, llama_96: Path) -> None:
    tied = whole(open_source(str(llama_tied)))
    choice = tied.space.smallest()
    assert tied.read_bytes(choice) == tied.space.total_bytes(choice) - 1000 + kept(open_source(str(llama_tied)))
    two = whole(open_source(str(llama_96)))
    choice = two.space.smallest()
    (embedding,) = (i for i, unit in enumerate(two.space.units) if unit.name == "token_embd")
    looked_up = two.space.size_bits[embedding, choice[embedding]] // 8
    assert two.read_bytes(choice) == two.space.total_bytes(choice) - 1000 - looked_up + kept(open_source(str(llama_96)))


def test_tensors_of_no_unit_are_read_as_well(llama_96: Path) -> None:
    source = open_source(str(llama_96))
    space = LLAMA_CPP.space(
        tuple(unit for unit in discover(source.tensors) if unit.name not in ("token_embd", "output")), menu=("Q8_0",), fixed_bytes=1000, n_weights=1
    )
    found = reading(space, source, NO_ROUTING)
    head = next(source.stored(tensor).nbytes for tensor in source.tensors if tensor.name == "output.weight")
    assert found.fixed_bytes == head + kept(source)


def test_a_stack_of_experts_is_read_in_the_share_that_a_token_uses(tiny_mixtral: Path) -> None:
    found = whole(open_source(str(tiny_mixtral)))
    assert {share for unit, share in zip(found.space.units, found.shares, strict=True) if unit.kind.endswith("_exps")} == {0.5}


@pytest.mark.parametrize("n_at_once", [1, 2])
def test_experts_are_read_as_often_as_they_are_chosen(tiny_mixtral: Path, n_at_once: int) -> None:
    found = apart(open_source(str(tiny_mixtral)), ("INT4_ROW", "INT8_ROW"), n_at_once)
    shares = {(unit.layer, unit.expert): share for unit, share in zip(found.space.units, found.shares, strict=True) if unit.expert >= 0}
    expected = (n_at_once * N_CHOSEN / 100).tolist()
    assert shares == pytest.approx({(layer, expert): expected[expert] for layer in range(2) for expert in range(4)})


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_the_cost_of_a_choice_is_its_bytes_read(tiny_mixtral: Path, seed: int) -> None:
    found = apart(open_source(str(tiny_mixtral)), ("INT4_ROW", "INT8_ROW"))
    rng = np.random.default_rng(seed)
    choice = np.array([rng.choice(np.flatnonzero(row)) for row in found.space.offered])
    assert float(found.active_bytes().of(choice)) == pytest.approx(found.read_bytes(choice))


def test_the_remaining_experts_share_the_tokens_of_a_dropped_one(tiny_mixtral: Path) -> None:
    found = apart(open_source(str(tiny_mixtral)), ("INT4_ROW", "INT8_ROW", "DROP"))
    space, choice = found.space, found.space.uniform(NATIVE.format("INT4_ROW"))
    size = {unit.name: float(space.size_bits[i, choice[i]]) / 8 for i, unit in enumerate(space.units)}
    names = [f"blk.0.expert.{expert}" for expert in range(4)]
    before = found.read_bytes(choice)
    (second,) = (i for i, unit in enumerate(space.units) if unit.name == names[1])
    choice[second] = space.formats.index(DROP)
    gain = sum(size[name] * (after - was) for name, after, was in zip(names, (6 / 7, 0, 1 / 7, 0), (0.6, 0.3, 0.1, 0), strict=True))
    assert found.read_bytes(choice) == pytest.approx(before + gain)
    with pytest.raises(ObjectiveError) as caught:
        found.active_bytes()
    sentence(caught.value, "leave experts out")


def test_seconds_are_bytes_by_the_rate_of_their_format(llama_96: Path) -> None:
    found = whole(open_source(str(llama_96)))
    by_bandwidth = found.seconds(DEVICE, cache_bytes=10_000)
    choice = found.space.smallest()
    assert float(by_bandwidth.of(choice)) == pytest.approx((found.read_bytes(choice) + 10_000) / (17.1e9 * DEVICE.reached), rel=0.02)
    rates = {"Q8_0": 1e-9, "Q4_0": 4e-9, "F32": 1e-9, "F16": 1e-9, "BF16": 1e-9}
    timed = replace(DEVICE, latency=Latency(rates, 0.5, 0.01))
    seconds = found.seconds(timed, cache_bytes=0)
    small, large = (found.space.uniform(LLAMA_CPP.format(name)) for name in ("Q4_0", "Q8_0"))
    assert seconds.of(np.stack([large, small])).tolist() == sorted(seconds.of(np.stack([small, large])).tolist())  # the smaller file is slower
    rest = found.fixed_bytes * DEVICE.seconds_per_token(1)
    assert float(seconds.of(small)) == pytest.approx(0.5 + 4e-9 * (found.read_bytes(small) - found.fixed_bytes) + rest)
    with pytest.raises(ObjectiveError) as caught:
        found.seconds(replace(timed, latency=Latency({"Q8_0": 1e-9}, 0.0, 0.01)), cache_bytes=0)
    sentence(caught.value, "has none for Q4_0")


def test_bytes_and_bits_are_costs_too(llama_96: Path) -> None:
    space: Space = whole(open_source(str(llama_96))).space
    choices = np.stack([space.smallest(), space.largest()])
    assert bytes_cost(space).of(choices).tolist() == [space.total_bytes(choice) for choice in choices]
    assert bits_cost(space).of(choices) == pytest.approx([space.bits_per_weight(choice) for choice in choices])
    assert {cost.unit for cost in CostObjective} == {"bytes", "bits/weight", "bytes/token", "s/token", "J/token"}


def test_the_heads_of_latent_attention_are_all_read(tmp_path: Path) -> None:
    model_type, settings, _ = tiny.FAMILIES["deepseek-v3"]
    source = as_held(open_source(str(saved(tmp_path / "deepseek", model_type, settings))), LLAMA_CPP)
    units = tuple(unit for unit in discover(source.tensors) if unit.kind not in ("attn_k_b", "attn_v_b"))
    found = reading(LLAMA_CPP.space(units, menu=("Q8_0",), fixed_bytes=0, n_weights=1), source, NO_ROUTING)
    decided = {tensor.name for unit in units for tensor in unit.tensors}
    assert found.fixed_bytes == sum(source.stored(t).nbytes for t in source.tensors if t.name not in decided)
    shares = {unit.kind: share for unit, share in zip(units, found.shares, strict=True)}
    assert (shares["ffn_up_exps"], shares["attn_q_b"]) == (2 / 8, 1)
