"""Seconds of a decode step of a structure: those of formats alone where all is kept, and the sum over the options of its blocks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.compress import Source, open_source, whole_structure
from bitwright.devices import Device, Latency, read_device
from bitwright.engines import engine_named
from bitwright.errors import ObjectiveError
from bitwright.objectives import CostObjective
from bitwright.pipeline import Conditions, Run
from bitwright.pipeline.planning.cost_limits import CostCeiling
from bitwright.pipeline.planning.costs import costs_of
from bitwright.pipeline.planning.structured_seconds import CountedSeconds, counted_seconds
from bitwright.pipeline.searching.structured_options import BlockOptions, StructurePrices, widths
from bitwright.search import solve_composite
from bitwright.spaces import CacheTypes, Structure, chosen_cache, has_cache, weight_space, without_cache
from tests.made_once import made_once
from tests.model_fixtures import saved
from tests.runs import UNSEARCHED, small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

_ENGINE = engine_named("llama.cpp")


def board(**other: object) -> Device:
    """A board that was timed: bytes of the smaller formats take longer."""
    rates = {"Q8_0": 1e-9, "Q5_0": 3e-9, "Q4_0": 4e-9, "Q2_K": 5e-9} | dict.fromkeys(("F32", "F16", "BF16"), 1e-9)
    known = replace(read_device("raspberry-pi-5-8gb"), context=32, latency=Latency(rates, 1e-4, 0.01))
    return replace(known, **other)  # type: ignore[arg-type]


def searched(model: Path, folder: Path, **other: object) -> tuple[Run, Source]:
    run = bw.pipeline.search(small(model, formats=("Q8_0", "Q5_0", "Q4_0"), **other), folder, n_points=2, by=UNSEARCHED)
    return run, _ENGINE.held(open_source(str(model), _ENGINE.view))


@pytest.fixture(scope="module")
def dense(model_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Source]:
    """A run with types of the cache, of a model with heads of 32."""
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 128, "intermediate_size": 256, "tie_word_embeddings": False}
    model = made_once(model_folders / "structured-seconds", lambda place: saved(place, "llama", shape))
    return searched(model, tmp_path_factory.mktemp("seconds") / "dense", cache_types="any", cache_length=24)


@pytest.fixture(scope="module")
def mixture(tiny_mixtral: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Source]:
    return searched(tiny_mixtral, tmp_path_factory.mktemp("seconds") / "mixture")


def counted(of: tuple[Run, Source], device: Device, types: CacheTypes) -> CountedSeconds:
    asked = Conditions((CostCeiling(CostObjective.SECONDS, 1.0),), device)
    found = counted_seconds(of[0], _ENGINE, of[1], asked, types)
    assert found is not None
    return found


@pytest.mark.parametrize("device", [board(), board(latency=None, sequences=2)], ids=["timed", "by bandwidth"])
@pytest.mark.parametrize("name", ["dense", "mixture"])
def test_all_that_is_kept_takes_the_seconds_of_formats_alone(name: str, device: Device, request: pytest.FixtureRequest) -> None:
    run, source = of = request.getfixturevalue(name)
    cost, rng, space = costs_of(run).named(CostObjective.SECONDS, device), np.random.default_rng(0), run.space
    for _ in range(5):
        choice = np.array([rng.choice(np.flatnonzero(offered)) for offered in space.offered])
        types = chosen_cache(space, choice) if has_cache(space) else CacheTypes()
        formats = weight_space(space).names(without_cache(space, choice))
        assert counted(of, device, types).of(whole_structure(source), formats) == pytest.approx(float(cost.of(choice)), rel=1e-12)


def options(of: tuple[Run, Source], seconds: CountedSeconds, *, n_experts: int) -> BlockOptions:
    """Return options whose losses are their seconds alone; every part may go, or of a mixture with `n_experts` kept the other experts."""
    run, source = of
    space, whole = weight_space(run.space), whole_structure(source)
    decided = {tensor.name for unit in space.units for tensor in unit.tensors}
    prices = StructurePrices(
        groups=tuple(dict.fromkeys((full,) if n_experts or not i else range(full + 1), 0.0) for i, full in enumerate(whole.head_groups)),
        channels=tuple(dict.fromkeys([full] if n_experts else widths(full), 0.0) for full in whole.channels),
        blocks={} if n_experts else {1: 0.0},
        shares=tuple(np.linspace(0, 1, full + 1) for full in whole.channels),
        experts=tuple({n_experts: 0.0} for _ in whole.channels) if n_experts else (),
        by_worth=whole.experts,
    )
    return BlockOptions(
        engine=_ENGINE,
        space=space,
        table=np.zeros(space.offered.shape),
        fixed=tuple(tensor for tensor in source.tensors if tensor.name not in decided),
        whole=whole,
        prices=prices,
        cache_bits=0,
        n_experts=n_experts,
        seconds=seconds,
        second_price=1.0,
    )


def test_the_options_of_a_structure_sum_up_to_its_seconds(dense: tuple[Run, Source]) -> None:
    """Solve at every budget, from the fastest to the smallest: what is summed up is what a plan of it takes."""
    seconds = counted(dense, board(), CacheTypes("Q8_0", "F16"))
    blocks = options(dense, seconds, n_experts=0)
    groups, found = blocks.groups(1.0), set[Structure]()
    bits = [sum(int(getattr(group.bits, end)()) for group in groups) for end in ("min", "max")]
    for budget in np.linspace(*bits, 12).astype(int):
        solved = solve_composite(groups, int(budget))
        choice, structure = blocks.chosen(solved.picks)
        found.add(structure)
        assert solved.loss + blocks.fixed_seconds() == pytest.approx(seconds.of(structure, blocks.space.names(choice)), rel=1e-12)
    assert any(structure != blocks.whole for structure in found)


@pytest.mark.parametrize("kept", [2, 3, 4])
def test_fewer_experts_are_read_more_often(kept: int, mixture: tuple[Run, Source]) -> None:
    seconds = counted(mixture, board(), CacheTypes())
    blocks = options(mixture, seconds, n_experts=kept)
    solved = solve_composite(blocks.groups(1.0), 10**12)
    choice, structure = blocks.chosen(solved.picks)
    assert {len(of_block) for of_block in structure.experts} == {kept}
    assert solved.loss + blocks.fixed_seconds() == pytest.approx(seconds.of(structure, blocks.space.names(choice)), rel=1e-12)


def test_what_is_gone_takes_no_time(dense: tuple[Run, Source]) -> None:
    """Attention gone is its matrices, its norm and its keys and values; the rates are those of the formats."""
    run, source = dense
    device, types = board(), CacheTypes()
    seconds, whole = counted(dense, device, types), whole_structure(source)
    formats = {tensor.name: "Q8_0" for unit in weight_space(run.space).units for tensor in unit.tensors}
    part = replace(whole, head_groups=(whole.head_groups[0], 0))
    gone = [tensor for tensor in source.tensors if tensor.name.startswith("blk.1.attn")]
    read = sum(
        1e-9 * _ENGINE.target.stored_bytes(tensor.shape, _ENGINE.target.format("Q8_0"))
        if tensor.name in formats
        else device.seconds_per_token(source.stored_bytes(tensor))
        for tensor in gone
    )
    head = next(tensor.shape[0] for tensor in source.tensors if tensor.name == "blk.1.attn_v.weight")
    cache = device.seconds_per_token(2 * 2 * 256 * head)  # keys and values in half precision, in a multiple of 256 cells
    assert seconds.of(whole, formats) - seconds.of(part, formats) == pytest.approx(read + cache, rel=1e-9)


def test_a_format_that_was_not_timed_is_refused(dense: tuple[Run, Source]) -> None:
    with pytest.raises(ObjectiveError) as refused:
        counted(dense, board(latency=Latency({"Q8_0": 1e-9}, 0.0, 0.01)), CacheTypes())
    sentence(refused.value, "Q5_0")
