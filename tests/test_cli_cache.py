from pathlib import Path

import pytest

from bitwright.engines import Serving
from bitwright.pipeline.planning.memory_budget import memory_of
from bitwright.spaces import CacheTypes, read_plan
from tests.commands import Cli
from tests.test_cli import refused


@pytest.mark.slow
def test_a_memory_decides_about_the_cache(bitwright: Cli, llama_64: Path, tmp_path: Path) -> None:
    short = ["--formats", "Q8_0,Q4_0", "--calibration-sequences", "2", "--held-out-sequences", "2", "--sequence-length", "16", "--evaluations", "0"]
    ended = bitwright("search", llama_64, *short, "--points", 2, "--cache-types", "any", "--out", tmp_path / "run")
    assert ended.code == 0
    less = memory_of(str(llama_64), Serving(1024)).total_bytes - 1_360_000  # more than the file alone could give up
    plan = ("plan", tmp_path / "run", "--memory", f"{less}B", "--context", 1024, "-o", tmp_path / "plan.json")
    ended = bitwright(*plan)
    assert ended.code == 0
    types = read_plan(tmp_path / "plan.json").cache
    assert types.keys != "F16"
    assert "Types of the cache were measured on 2 sequences of 16 tokens of" in ended.out
    assert f"llama-server -m MODEL -c 1024 -np 1 -ctk {types.keys.lower()} -ctv {types.values.lower()}" in ended.out
    ended = bitwright("memory", tmp_path / "plan.json", "--context", 1024)
    assert f"-ctk {types.keys.lower()} -ctv {types.values.lower()}" in ended.out
    assert bitwright(*plan, "--cache-types", "q4_0,q8_0").code == 0
    assert read_plan(tmp_path / "plan.json").cache.types == CacheTypes("Q4_0", "Q8_0")
    refused(bitwright("memory", tmp_path / "plan.json", "--context", 64, "--cache-types", "any"), "'any'")
    refused(bitwright("plan", tmp_path / "run", "--budget", "9bpw", "--cache-types", "q8_0"), "--memory")
    refused(bitwright("search", llama_64, "--sensitivity", "weight", "--cache-types", "any", "--out", tmp_path / "other"), "'weight'")
