"""The commands that ask about engines."""

from pathlib import Path

import pytest

import bitwright as bw
from tests.commands import Cli
from tests.runs import UNSEARCHED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(gguf_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    settings = bw.Settings(str(gguf_256), formats=("Q8_0", "Q4_K"), n_calibration=2, n_held_out=2, sequence_length=16)
    found = bw.pipeline.search(settings, folder / "run", n_points=2, by=UNSEARCHED)
    made, _ = bw.plan(found, bw.parse_budget("6bpw"))
    bw.pipeline.write_plan(made, folder / "plan.json")
    return folder


def test_preflight_asks_an_engine_before_any_work(bitwright: Cli, run: Path) -> None:
    known = bitwright("preflight", run / "plan.json", "--engine", "llama.cpp")
    assert (known.code, known.err) == (0, "")
    assert "loads every tensor" in known.out
    other = bitwright("preflight", run / "plan.json", "--engine", "vllm", "--engine-version", "0.32.0")
    assert other.code == 1
    assert "vllm has no such format" in other.out
    assert "would not load this plan" in other.err
    assert bitwright("preflight", run / "plan.json", "--engine", "vllm", "--engine-version", "9").code == 2


def test_rules_are_priced_only_with_formats_of_the_engine(bitwright: Cli, run: Path) -> None:
    ended = bitwright("rules", run / "run", "--engine", "vllm")
    assert ended.code == 2
    assert "search for that target instead" in ended.err
