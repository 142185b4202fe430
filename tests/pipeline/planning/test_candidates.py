import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.compress import open_source
from bitwright.errors import BudgetError
from bitwright.pipeline import Run
from bitwright.pipeline.planning.candidates import best, budget_bytes, candidates, make_plan
from bitwright.spaces import Choice, parse_budget
from tests.measuring import measurement_of, uniform
from tests.sentences import sentence


def test_a_budget_must_be_below_the_original() -> None:
    assert budget_bytes(parse_budget("999B"), n_weights=10, original_bytes=1000) == 999
    assert budget_bytes(parse_budget("8bpw"), n_weights=10, original_bytes=1000) == 10
    with pytest.raises(BudgetError) as refused:
        budget_bytes(parse_budget("2MB"), n_weights=10, original_bytes=2_000_000)
    sentence(refused.value, "2MB", "2.0 MB", "smaller budget")


def alike(run: Run) -> Run:
    """The run with prices of formats that are closer to each other."""
    return replace(run, table=run.table**0.2)


def unsearched(found: dict[str, Choice]) -> list[str]:
    """The names of candidates that no search had to find."""
    return [name for name in found if name.startswith(("knapsack", "uniform"))]


@pytest.mark.slow
def test_candidates_are_the_optimum_and_the_two_largest_uniforms_that_fit(searched: Run) -> None:
    space, run = searched.space, alike(searched)
    sizes = {name: space.total_bytes(uniform(space, name)) for name in ("Q8_0", "Q5_0", "Q4_0")}
    found = candidates(run, sizes["Q8_0"])
    assert unsearched(found) == ["knapsack", "uniform Q8_0", "uniform Q5_0"]
    found = candidates(run, sizes["Q8_0"] - 1)
    assert unsearched(found) == ["knapsack", "uniform Q5_0", "uniform Q4_0"]
    assert all(space.total_bytes(choice) < sizes["Q8_0"] for choice in found.values())
    assert run.summed(found["knapsack"]) <= run.summed(found["uniform Q5_0"])
    assert unsearched(candidates(run, sizes["Q4_0"])) == ["knapsack", "uniform Q4_0"]
    with pytest.raises(BudgetError) as refused:
        candidates(run, sizes["Q4_0"] - 1)
    sentence(refused.value, f"{sizes['Q4_0']:,} bytes", "raise it")


@pytest.mark.slow
@pytest.mark.parametrize(("times", "named"), [(2.9, ["uniform Q8_0", "uniform Q5_0"]), (3.1, ["uniform Q8_0"])])
def test_a_second_uniform_allocation_is_a_candidate_up_to_three_times_the_first_ones_price(searched: Run, times: float, named: list[str]) -> None:
    columns = {form.name: f for f, form in enumerate(searched.space.formats)}
    table = searched.table.copy()
    table[:, columns["Q5_0"]] = times * table[:, columns["Q8_0"]]
    found = candidates(replace(searched, table=table), 10**6)
    assert [name for name in found if name.startswith("uniform")] == named


@pytest.mark.slow
def test_a_uniform_allocation_that_another_beats_in_size_and_price_is_no_candidate(searched: Run) -> None:
    columns = {form.name: f for f, form in enumerate(searched.space.formats)}
    table = alike(searched).table.copy()
    table[:, columns["Q5_0"]] = 2 * table[:, columns["Q4_0"]]
    found = candidates(replace(searched, table=table), searched.space.total_bytes(uniform(searched.space, "Q8_0")))
    assert [name for name in found if name.startswith("uniform")] == ["uniform Q8_0", "uniform Q4_0"]


@pytest.mark.slow
@pytest.mark.parametrize(("coarse_nats", "winner"), [(0.2, "fine"), (0.1, "coarse"), (0.05, "coarse")])
def test_the_one_measured_best_wins_and_of_equals_the_smaller(
    searched: Run, monkeypatch: pytest.MonkeyPatch, coarse_nats: float, winner: str
) -> None:
    found = candidates(alike(searched), 10**6)
    named = {"fine": found["uniform Q8_0"], "coarse": found["uniform Q5_0"]}
    measured = {"fine": measurement_of(named["fine"], (0.1, 0.1)), "coarse": measurement_of(named["coarse"], (coarse_nats, coarse_nats))}
    monkeypatch.setattr(Run, "measurements", {m.choice: m for m in measured.values()})
    assert best(searched, named, {}) == (winner, measured[winner])


@pytest.mark.slow
def test_a_plan_says_all_that_is_needed_to_build_it_again(searched: Run) -> None:
    run = bw.open_run(searched.folder)
    measured = next(iter(run.measurements.values()))
    made = make_plan(run, budget="6bpw", strategy="knapsack", measurement=measured)
    run.store.close()
    assert Path(made.model.source).is_absolute()
    assert made.model.fingerprint == open_source(made.model.source).fingerprint
    assert made.size_bytes == run.space.total_bytes(np.array(measured.choice))
    assert made.divergence.nats_per_token == measured.nats_per_token
    assert made.importance.sha256 == hashlib.sha256(Path(made.importance.path).read_bytes()).hexdigest()
    assert (made.found.strategy, made.found.sensitivity, made.found.seed, made.found.budget) == ("knapsack", "gradient", 0, "6bpw")
    assert "sampled from the model" in made.found.calibration
    assert made.target == "llama.cpp"
