"""Ceilings on costs: kept by the plan, exactly, and refused in a sentence where they cannot be."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.devices import Device, Latency, PowerUnknown
from bitwright.devices.device import read_device
from bitwright.errors import BudgetError, DeviceError, ObjectiveError, UserError
from bitwright.methods.by_name import method_named
from bitwright.objectives import Cost, CostObjective
from bitwright.pipeline import Conditions, Run, Search
from bitwright.pipeline.planning.candidates import candidates
from bitwright.pipeline.planning.cost_limits import CostCeiling, parse_at_most, parse_costs
from bitwright.pipeline.planning.costs import costs_of, limits_of
from bitwright.pipeline.searching.search import named_objectives
from bitwright.search import solve
from tests.runs import UNSEARCHED, small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

MENU = ("INT2_G32", "INT4_G32", "INT8_G32")


@pytest.fixture(scope="module")
def of_experts(tiny_mixtral: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings, folder = small(tiny_mixtral, target="native", formats=MENU), tmp_path_factory.mktemp("ceilings") / "run"
    return bw.pipeline.search(settings, folder, n_points=2, by=UNSEARCHED)


@pytest.fixture(scope="module")
def own(searched: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the session's run, to measure more in."""
    return bw.open_run(Path(shutil.copytree(searched.folder, tmp_path_factory.mktemp("own") / "run")))


@pytest.fixture
def board() -> Device:
    """A board on which the smaller files are the slower ones."""
    known = replace(read_device("raspberry-pi-5-8gb"), context=32)
    rates = {"Q8_0": 1e-9, "Q5_0": 3e-9, "Q4_0": 4e-9} | dict.fromkeys(("F32", "F16", "BF16"), 1e-9)
    return replace(known, latency=Latency(rates, 1e-4, 0.01))


def middle(run: Run, cost: Cost, size_bytes: int) -> float:
    """Half way between the least that a plan within the size can take, and what the best one takes."""
    space = run.space
    best = candidates(run, size_bytes)["knapsack"]
    least = solve(space, np.where(space.offered, cost.table, 0.0), 8 * size_bytes).choice
    assert cost.of(least) < cost.of(best)
    return float(cost.of(least) + cost.of(best)) / 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("seconds-per-token=0.05", CostCeiling(CostObjective.SECONDS, 0.05)),
        (" joules-per-token = 3e-1 ", CostCeiling(CostObjective.JOULES, 0.3)),
        ("active-bytes=60MB", CostCeiling(CostObjective.ACTIVE_BYTES, 60e6)),
        ("active-bytes=600", CostCeiling(CostObjective.ACTIVE_BYTES, 600.0)),
    ],
)
def test_ceilings_are_read(text: str, found: CostCeiling) -> None:
    assert parse_at_most(text) == found


@pytest.mark.parametrize("text", ["seconds-per-token", "seconds-per-token=fast", "bytes=90MB", "kl=", "joules-per-token=0", "active-bytes=4bpw"])
def test_what_is_no_ceiling_is_refused(text: str) -> None:
    with pytest.raises(ObjectiveError) as caught:
        parse_at_most(text)
    sentence(caught.value, text)


def test_a_plan_keeps_the_ceilings_and_says_so(own: Run, board: Device) -> None:
    space = own.space
    size_bytes = (space.total_bytes(space.smallest()) + 3 * space.total_bytes(space.largest())) // 4
    seconds = costs_of(own).named(CostObjective.SECONDS, board)
    ceiling = middle(own, seconds, size_bytes)
    asked = Conditions((CostCeiling(CostObjective.SECONDS, ceiling),), board)
    made, summary = bw.plan(own, bw.parse_budget(f"{size_bytes}B"), conditions=asked)
    chosen = space.choice(made.formats)
    assert seconds.of(chosen) <= ceiling
    assert made.size_bytes <= size_bytes
    assert f"seconds-per-token at most {ceiling:,.10g}" in made.found.budget
    assert all(seconds.of(c.choice) <= ceiling for c in summary.candidates if c.chosen)
    freely, _ = bw.plan(own, bw.parse_budget(f"{size_bytes}B"))
    assert seconds.of(space.choice(freely.formats)) > ceiling


def test_a_fit_keeps_them_in_its_search_as_well(llama_96: Path, own: Run, board: Device, tmp_path: Path) -> None:
    space = own.space
    size_bytes = (space.total_bytes(space.smallest()) + 3 * space.total_bytes(space.largest())) // 4
    seconds = costs_of(own).named(CostObjective.SECONDS, board)
    ceiling = middle(own, seconds, size_bytes)
    by = Search(method_named("auto"), evaluations=5, objectives=named_objectives("kl,seconds-per-token"))
    asked = Conditions((CostCeiling(CostObjective.SECONDS, ceiling),), board)
    fitted = bw.fit(own.settings, bw.parse_budget(f"{size_bytes}B"), tmp_path, conditions=asked, by=by)
    assert seconds.of(space.choice(fitted.plan.formats)) <= ceiling
    tried = [np.array(choice) for choice in bw.open_run(tmp_path).evaluated()]
    assert len(tried) > 1
    assert all(seconds.of(choice) <= ceiling for choice in tried)
    assert fitted.judgement.objectives == ("kl nats/token", "seconds-per-token s/token")
    for _, (_, taken) in fitted.judgement.rows:
        assert taken.value <= ceiling
        assert taken.standard_error == 0
    with pytest.raises(UserError) as caught:
        bw.fit(own.settings, bw.parse_budget(f"{size_bytes}B"), tmp_path, conditions=asked, by=Search(method_named("evopress"), evaluations=5))
    sentence(caught.value, "evopress")


def test_experts_that_are_read_often_get_fewer_bits_under_a_ceiling(of_experts: Run) -> None:
    space = of_experts.space
    size_bytes = (space.total_bytes(space.smallest()) + space.total_bytes(space.largest())) // 2
    active = costs_of(of_experts).named(CostObjective.ACTIVE_BYTES, None)
    ceiling = middle(of_experts, active, size_bytes)
    made, _ = bw.plan(of_experts, bw.parse_budget(f"{size_bytes}B"), conditions=Conditions((CostCeiling(CostObjective.ACTIVE_BYTES, ceiling),)))
    assert active.of(space.choice(made.formats)) <= ceiling
    assert bw.pipeline.decode_read_bytes(of_experts, made.formats)[0] <= ceiling


def test_what_cannot_be_kept_says_which_by_how_much_and_the_way_out(own: Run, board: Device) -> None:
    space = own.space
    size_bytes = space.total_bytes(space.largest()) - 1
    seconds, active = (costs_of(own).named(objective, board) for objective in (CostObjective.SECONDS, CostObjective.ACTIVE_BYTES))
    least = min(float(seconds.of(candidates(own, size_bytes)[name])) for name in candidates(own, size_bytes))

    def refused(*at_most: CostCeiling) -> str:
        with pytest.raises(BudgetError) as caught:
            candidates(own, size_bytes, limits_of(own, Conditions(at_most, board)))
        return sentence(caught.value, "raise it")

    said = refused(CostCeiling(CostObjective.SECONDS, least / 100))
    assert "seconds-per-token=" in said
    assert "% above" in said
    smallest = float(active.of(space.smallest()))
    together = refused(CostCeiling(CostObjective.ACTIVE_BYTES, 1.01 * smallest), CostCeiling(CostObjective.SECONDS, least))
    assert "and active-bytes at most" in together
    assert "or one of the others" in together


def test_a_device_is_needed_and_its_power_for_joules(own: Run, board: Device) -> None:
    costs = costs_of(own)
    with pytest.raises(DeviceError) as caught:
        costs.named(CostObjective.SECONDS, None)
    sentence(caught.value, "--profile")
    with pytest.raises(DeviceError) as caught:
        costs.named(CostObjective.JOULES, replace(board, power_watts=PowerUnknown()))
    sentence(caught.value, "power_watts")
    with pytest.raises(DeviceError) as caught:
        costs.named(CostObjective.SECONDS, replace(board, engine="vllm"))
    sentence(caught.value, "vllm")
    choice = own.space.smallest()
    powered = replace(board, power_watts=5.0, sequences=2)
    seconds, joules = (float(costs.named(objective, powered).of(choice)) for objective in (CostObjective.SECONDS, CostObjective.JOULES))
    assert joules == pytest.approx(2.5 * seconds)


def test_a_run_has_a_front_on_three_axes(own: Run, board: Device) -> None:
    summary = bw.pipeline.describe(own, parse_costs("seconds-per-token,active-bytes"), device=board)
    seconds, active = summary.cost_fronts
    assert (seconds.device, active.device) == (board.name, "")
    known = costs_of(own).named(CostObjective.SECONDS, board)
    assert seconds.of_candidates.tolist() == [float(known.of(candidate.choice)) for candidate in summary.candidates]
    space = own.space
    fast = known.of(solve(space, np.where(space.offered, known.table, 0.0), 8 * space.total_bytes(space.largest())).choice)
    assert seconds.taken.min() == pytest.approx(float(fast))
    assert seconds.sizes_bytes.min() == space.total_bytes(space.smallest())
    assert seconds.least(seconds.sizes_bytes.max(), seconds.ceilings[-1]) == pytest.approx(summary.front_nats.min())
    with pytest.raises(ObjectiveError) as caught:
        parse_costs("kl")
    sentence(caught.value, "'kl'")
