"""Runs that are killed, for real and at any moment, end where an undisturbed run does."""

import random
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import bitwright as bw
from tests.processes import process
from tests.runs import leftovers, plan_without_paths, rows, small
from tests.work import SILENCE_SECONDS, fit, fit_elsewhere

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("model", "sensitivity"), [("llama_tied", "gradient"), ("tiny_mixtral", "gradient"), ("llama_tied", "measured")])
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(model: str, sensitivity: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    settings = small(request.getfixturevalue(model), sensitivity=sensitivity, n_calibration=16, sequence_length=12)
    budget = bw.parse_budget("9.5bpw")
    fit_elsewhere(settings, budget, tmp_path / "whole")
    moments = random.Random(f"{model} {sensitivity}")
    before: dict[str, dict[Any, Any]] = {"arrays": {}, "measurements": {}}
    for _ in range(2):
        n_heard = moments.randrange(3, 45)  # a run with nothing left to measure tells 50 times as it writes and checks its file
        with process(fit, settings, budget, tmp_path / "killed") as running:
            heard = list(islice(running.news(SILENCE_SECONDS), n_heard))
            time.sleep(moments.random() * 0.02)
            running.kill()
        assert len(heard) == n_heard
        assert "finished" not in heard
        after = rows(tmp_path / "killed")
        for table, known in before.items():
            assert known.items() <= after[table].items(), "what was finished was done again, or differently"
        before = after
    assert before["arrays"], "nothing was finished before the last kill, so nothing is tested"
    fit_elsewhere(settings, budget, tmp_path / "killed")
    whole, resumed = rows(tmp_path / "whole"), rows(tmp_path / "killed")
    assert all(known.items() <= resumed[table].items() for table, known in before.items())
    assert resumed["arrays"] == whole["arrays"]
    assert len(resumed["measurements"]) == len(whole["measurements"])
    assert plan_without_paths(tmp_path / "killed" / "plan.json") == plan_without_paths(tmp_path / "whole" / "plan.json")
    assert (tmp_path / "killed" / "model.gguf").read_bytes() == (tmp_path / "whole" / "model.gguf").read_bytes()
    assert not leftovers(tmp_path / "killed")


def test_a_measurement_that_was_finished_is_never_made_again(llama_tied: Path, tmp_path: Path) -> None:
    """The run is killed as soon as a first candidate has been measured; its seconds, which no second measurement would repeat, stay."""
    settings, budget = small(llama_tied, sensitivity="weight"), bw.parse_budget("9.5bpw")
    with process(fit, settings, budget, tmp_path) as running:
        for title in running.news(SILENCE_SECONDS):
            if title == "Measuring candidates on held-out text" and rows(tmp_path)["measurements"]:
                break
        running.kill()
    first = rows(tmp_path)["measurements"]
    assert first
    fit_elsewhere(settings, budget, tmp_path)
    after = rows(tmp_path)["measurements"]
    assert first.items() <= after.items()
    assert list(after) == list(range(1, len(after) + 1))
