"""The commands that know costs: ceilings of a plan, and the front on three axes."""

from pathlib import Path

import pytest

import bitwright as bw
from bitwright.spaces import read_plan
from tests.commands import Cli
from tests.runs import BRIEF

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(gguf_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three formats."""
    folder = tmp_path_factory.mktemp("costs")
    settings = bw.Settings(str(gguf_256), formats=("Q8_0", "Q4_K", "Q4_0"), n_calibration=2, n_held_out=2, sequence_length=16)
    bw.pipeline.search(settings, folder / "run", n_points=3, by=BRIEF)
    return folder


def test_a_plan_keeps_a_ceiling_and_the_front_has_it_as_an_axis(bitwright: Cli, finished: Path, tmp_path: Path) -> None:
    board = tmp_path / "board.toml"
    known = 'memory = "1GiB"\nusable = 1.0\nbandwidth_gb_per_second = 1\nreached = 1.0\nengine = "llama.cpp"\nversion = "b11549"\n'
    board.write_text(f'name = "slow board"\n{known}context = 64\nsequences = 1\nleast_tokens_per_second = 0\n', encoding="utf-8")
    page = tmp_path / "front.html"
    ended = bitwright("front", finished / "run", "--costs", "seconds-per-token,active-bytes", "--profile", board, "--report", page)
    assert ended.code == 0
    assert "seconds-per-token on slow board" in ended.out
    assert "Costs of the candidates" in ended.out
    assert "Size, divergence and active-bytes" in page.read_text(encoding="utf-8")
    plan = ("plan", finished / "run", "-o", tmp_path / "plan.json", "--budget", "6.5bpw")
    ended = bitwright(*plan, "--at-most", "seconds-per-token=1e-9", "--profile", board)
    assert ended.code == 2
    assert "no plan takes less than" in ended.err
    assert bitwright(*plan, "--at-most", "active-bytes=10MB").code == 0
    assert read_plan(tmp_path / "plan.json").found.budget == "6.5bpw, active-bytes at most 10,000,000"
    for wrong in ("seconds-per-token=0.05", "joules-per-token=1 --profile board", "flips=0.1", "seconds-per-token=1 --profile nowhere.toml"):
        ended = bitwright(*plan, "--at-most", *wrong.split())
        assert ended.code == 2
        assert ended.err.count("\n") == 1


def test_a_ceiling_on_the_divergence_takes_the_place_of_a_budget(bitwright: Cli, finished: Path, gguf_256: Path, tmp_path: Path) -> None:
    measured = bw.open_run(finished / "run").measurements.values()
    goal = max(measurement.nats_per_token for measurement in measured)
    plan = ("plan", finished / "run", "-o", tmp_path / "plan.json")
    assert bitwright(*plan, "--at-most", f"kl={goal:.6f}").code == 0
    small = read_plan(tmp_path / "plan.json")
    assert small.divergence.nats_per_token <= goal + 1e-6
    assert small.found.budget == f"the smallest of at most {float(f'{goal:.6f}'):g} nats/token"
    short = ["--formats", "Q8_0,Q4_0", "--calibration-sequences", 2, "--held-out-sequences", 2, "--sequence-length", 16, "--evaluations", 0]
    ended = bitwright("fit", gguf_256, *short, "--at-most", "kl=0.05", "--out", tmp_path / "fitted")
    assert ended.code == 0
    fitted = read_plan(tmp_path / "fitted" / "plan.json")
    assert fitted.divergence.nats_per_token <= 0.05
    assert (tmp_path / "fitted" / "model.gguf").stat().st_size == fitted.size_bytes
    for wrong in ("kl=1e-12", "kl=none", "kl=0.1 --budget 6.5bpw"):
        ended = bitwright(*plan, "--at-most", *wrong.split())
        assert ended.code == 2
        assert ended.err.splitlines()[-1].startswith("bitwright: A ceiling")
