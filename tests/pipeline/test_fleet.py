import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.devices import Device, Latency, PowerUnknown
from bitwright.engines.llama_cpp.log import engine_memory
from bitwright.errors import UserError
from bitwright.pipeline import Run
from bitwright.pipeline.fleet import DevicePlan, DeviceWithoutPlan, plan_fleet
from bitwright.pipeline.fleet_files import build_fleet, write_fleet
from bitwright.pipeline.planning.costs import costs_of, serving_of
from bitwright.pipeline.planning.memory_budget import memory_of
from bitwright.search import solve
from bitwright.spaces import DEFAULT_CACHE
from tests.runs import rows
from tests.sentences import sentence

pytestmark = pytest.mark.slow

BOARD = Device("board", 2**30, 1.0, 1e9, 1.0, "llama.cpp", "b11549", 64, 1, 0.0, PowerUnknown(), (), DEFAULT_CACHE, (), None)


def needs(run: Run, device: Device, share: float) -> Device:
    """The device with just the memory for the smallest file and `share` of the way to the largest."""
    space = run.space
    sizes = [space.total_bytes(choice) for choice in (space.smallest(), space.largest())]
    rest = memory_of(run.settings.model, serving_of(device)).total_bytes - run.original_bytes
    return replace(device, memory_bytes=round(rest + sizes[0] + share * (sizes[1] - sizes[0])))


def one(run: Run, device: Device) -> DevicePlan:
    (row,) = plan_fleet(run, [device]).rows
    assert isinstance(row, DevicePlan), row
    return row


def reason(run: Run, device: Device) -> str:
    (row,) = plan_fleet(run, [device]).rows
    assert isinstance(row, DeviceWithoutPlan)
    return sentence(UserError(row.reason), device.name)


def test_every_plan_is_within_its_device(searched: Run) -> None:
    before = rows(searched.folder)
    devices = [replace(needs(searched, BOARD, share), name=f"board {share}") for share in (0.0, 0.3, 0.6, 1.0)]
    found = plan_fleet(searched, devices)
    nats = []
    for device, row in zip(devices, found.assigned, strict=True):
        assert row.device == device
        assert row.memory.total_bytes <= device.usable_bytes
        assert row.plan.size_bytes == searched.space.total_bytes(row.choice)
        nats.append(row.plan.divergence.nats_per_token)
    assert nats == sorted(nats, reverse=True)
    assert found.assigned[0].choice.tolist() == searched.space.smallest().tolist()
    assert rows(searched.folder) == before  # nothing was measured


def test_a_measured_choice_says_so_and_another_is_foretold(searched: Run) -> None:
    bases = set()
    for share in np.linspace(0, 1, 12):
        row = one(searched, needs(searched, BOARD, float(share)))
        promise = row.plan.divergence
        bases.add(promise.basis)
        measured = searched.measurements.get(tuple(row.choice.tolist()))
        assert (promise.basis == "measured") == (measured is not None)
        if measured is not None:
            assert promise.nats_per_token == measured.nats_per_token
        else:
            assert promise.n_tokens == 0
    assert bases == {"measured", "predicted"}


def test_a_least_speed_makes_the_file_smaller(searched: Run) -> None:
    whole = one(searched, BOARD)
    slowest, fastest = whole.tokens_per_second, one(searched, needs(searched, BOARD, 0.0)).tokens_per_second
    wanted = (slowest + fastest) / 2
    row = one(searched, replace(BOARD, least_tokens_per_second=wanted))
    assert row.tokens_per_second >= wanted
    assert row.plan.size_bytes < whole.plan.size_bytes
    said = reason(searched, replace(BOARD, least_tokens_per_second=1e6))
    assert "tokens/s" in said
    assert "smaller model" in said


def test_a_machine_that_was_timed_is_as_fast_as_it_was_timed(searched: Run) -> None:
    rates = {form.name: 1e-9 for form in searched.space.formats}
    as_bandwidth = replace(BOARD, latency=Latency(rates, 0.0, 0.01))
    assert one(searched, as_bandwidth).tokens_per_second == pytest.approx(one(searched, BOARD).tokens_per_second, rel=1e-3)
    slow = replace(BOARD, latency=Latency(rates | {"Q8_0": 1e-8}, 0.0, 0.01))
    assert one(searched, slow).tokens_per_second < 0.5 * one(searched, BOARD).tokens_per_second
    untimed = replace(BOARD, latency=Latency({form: rate for form, rate in rates.items() if form != "Q5_0"}, 0.0, 0.01))
    assert "has none for Q5_0: measure them" in reason(searched, untimed)
    assert "Q5_0" not in one(searched, replace(untimed, avoid=("Q5_0",))).plan.formats.values()


def test_a_slow_format_gives_way_to_fast_ones_at_the_least_divergence(searched: Run) -> None:
    """Size alone finds nothing that is fast enough if the formats of the smallest files are slow, and the integer programme does."""
    rates = {form.name: 1e-9 for form in searched.space.formats} | {"Q4_0": 5e-9, "Q5_0": 3e-9}
    board = replace(needs(searched, BOARD, 0.7), latency=Latency(rates, 0.0, 0.01))
    wanted = 1.05 * one(searched, board).tokens_per_second
    row = one(searched, replace(board, least_tokens_per_second=wanted))
    assert row.tokens_per_second >= wanted
    assert row.memory.total_bytes <= board.usable_bytes
    space, seconds = searched.space, costs_of(searched).seconds(board, searched.space)
    budgets = np.linspace(space.total_bytes(space.smallest()), row.plan.size_bytes, 50)
    by_size = [solve(space, searched.table, 8 * int(size_bytes)).choice for size_bytes in budgets]
    assert max(1 / float(seconds.of(choice)) for choice in by_size) < wanted


def test_what_a_device_avoids_is_not_in_its_plan(searched: Run) -> None:
    assert "Q4_0" not in one(searched, replace(needs(searched, BOARD, 0.5), avoid=("Q4_0",))).plan.formats.values()
    assert "Q4_0" in one(searched, needs(searched, BOARD, 0.1)).plan.formats.values()
    assert "'Q4_9'" in reason(searched, replace(BOARD, avoid=("Q4_9",)))


def test_what_is_missing_and_what_would_help_is_said(searched: Run) -> None:
    little = needs(searched, BOARD, 0.0)
    assert "MiB are missing" in reason(searched, replace(little, memory_bytes=little.memory_bytes - 2**20))
    said = reason(searched, replace(little, sequences=4))
    assert "one sequence at a time" in said
    short = needs(searched, BOARD, 0.0)
    assert "a context of 1,024" not in reason(searched, replace(short, memory_bytes=short.memory_bytes - 2**20, context=128))
    assert "Q4_0, which the device avoids" in reason(searched, replace(little, avoid=("Q4_0",)))
    assert "context" in reason(searched, replace(BOARD, context=10**6))
    assert "search for that target" in reason(searched, replace(BOARD, engine="vllm"))


def test_equal_plans_share_one_file_and_the_manifest_says_all(searched: Run, tmp_path: Path) -> None:
    small, large = needs(searched, BOARD, 0.0), BOARD
    devices = [
        replace(small, name="A board"),
        replace(large, name="card"),
        replace(large, name="card, too"),
        replace(small, name="none", memory_bytes=1),
    ]
    found = plan_fleet(searched, devices)
    write_fleet(found, tmp_path, checksums={})
    assert not (tmp_path / "models").exists()
    sums = build_fleet(found, tmp_path)
    assert len(sums) == 2
    manifest = json.loads(write_fleet(found, tmp_path, checksums=sums).read_text(encoding="utf-8"))
    board, card, same, none = manifest["devices"]
    assert card["model"] == same["model"]
    for entry in (board, card):
        path = tmp_path / entry["model"]["path"]
        assert path.stat().st_size == entry["model"]["size_bytes"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["model"]["sha256"]
        low, high = entry["divergence"]["interval_90"]
        assert low <= entry["divergence"]["nats_per_token"] <= high
        assert bw.read_plan(tmp_path / entry["plan"]).size_bytes == entry["model"]["size_bytes"]
        assert entry["memory"]["total_bytes"] == sum(v for k, v in entry["memory"].items() if k not in {"total_bytes", "usable_bytes"})
    assert none == {"name": "none", "fits": False, "reason": found.rows[-1].reason}  # type: ignore[union-attr]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "card · card, too" in page
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "models").iterdir()}
    assert build_fleet(found, tmp_path) == sums
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "models").iterdir()} == times


def test_the_engine_takes_no_more_than_was_counted(searched: Run, tmp_path: Path) -> None:
    row = one(searched, needs(searched, BOARD, 0.4))
    found = plan_fleet(searched, [row.device])
    (name,) = build_fleet(found, tmp_path)
    engine = engine_memory(tmp_path / name, serving_of(row.device), fill=50)
    assert engine.buffers_bytes < 1.01 * row.memory.buffers_bytes
    assert engine.resident_bytes < 1.1 * row.device.usable_bytes
