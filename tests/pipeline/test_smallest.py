"""The smallest file whose divergence stays within a ceiling."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import bitwright as bw
from bitwright.errors import BudgetError, ObjectiveError, UserError
from bitwright.objectives import CostObjective
from bitwright.pipeline import Run
from bitwright.pipeline.planning.cost_limits import CostCeiling, parse_conditions
from bitwright.pipeline.planning.costs import costs_of
from bitwright.pipeline.searching.search import DEFAULT, named_objectives
from bitwright.pipeline.smallest import smallest_plan
from bitwright.progress import Silent
from tests.sentences import sentence

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own(searched: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the session's run, to measure more in."""
    return bw.open_run(Path(shutil.copytree(searched.folder, tmp_path_factory.mktemp("own") / "run")))


class Notes(Silent):
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def measured_tokens(run: Run) -> int:
    return {name: n_tokens for name, _, n_tokens, _ in run.store.stages()}["candidates"]


def test_a_lower_ceiling_takes_a_larger_file(own: Run) -> None:
    known = sorted(m.nats_per_token for m in own.measurements.values())
    sizes, progress, n_before = [], Notes(), measured_tokens(own)
    for goal in (known[-1] * 1.01, (known[0] + known[-1]) / 2, known[0] * 1.5):
        made, summary = smallest_plan(own, parse_conditions([f"kl={goal:.6f}"], None), progress=progress)
        n_read, n_before = measured_tokens(own) - n_before, measured_tokens(own)
        assert f"the plan of {made.size_bytes:,} bytes has" in progress.notes[-1]
        assert f"; {n_read:,} tokens were read" in progress.notes[-1]
        assert made.divergence.nats_per_token <= goal
        assert made.divergence.basis == "measured"
        assert f"at most {goal:g} nats/token" in made.found.budget or "the smallest of at most" in made.found.budget
        assert summary.chosen.size_bytes == made.size_bytes
        sizes.append(made.size_bytes)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert sizes[0] == own.space.total_bytes(own.space.smallest())


def test_a_fit_ends_with_the_smallest_file_in_the_engine(searched: Run, tmp_path: Path) -> None:
    settings = searched.settings
    goal = sum(m.nats_per_token for m in searched.measurements.values()) / len(searched.measurements)
    by = replace(DEFAULT, evaluations=2)
    fitted = bw.pipeline.fit_smallest(settings, parse_conditions([f"kl={goal:.6f}"], None), tmp_path / "out", by=by)
    assert fitted.plan.divergence.nats_per_token <= goal
    assert fitted.plan == bw.read_plan(tmp_path / "out" / "plan.json")
    assert fitted.model.stat().st_size == fitted.plan.size_bytes
    assert not fitted.check.broken
    assert fitted.report.is_file()
    space = bw.open_run(tmp_path / "out").space
    assert space.total_bytes(space.smallest()) <= fitted.plan.size_bytes < space.total_bytes(space.largest())


def test_other_ceilings_are_kept_beside(own: Run) -> None:
    space = own.space
    active = costs_of(own).named(CostObjective.ACTIVE_BYTES, None)
    ceiling = float(active.of(space.smallest()) + active.of(space.largest())) / 2
    loosest = max(m.nats_per_token for m in own.measurements.values())
    made, _ = smallest_plan(own, replace(parse_conditions([f"kl={loosest:.6f}"], None), at_most=(CostCeiling(CostObjective.ACTIVE_BYTES, ceiling),)))
    assert active.of(space.choice(made.formats)) <= ceiling


def test_what_no_plan_reaches_is_refused(own: Run) -> None:
    conditions = parse_conditions(["kl=1e-9"], None)
    with pytest.raises(BudgetError) as caught:
        smallest_plan(own, conditions)
    sentence(caught.value, "kl=1e-09", "raise it")
    with pytest.raises(UserError) as undecided:
        bw.pipeline.fit_smallest(own.settings, conditions, own.folder, by=replace(DEFAULT, objectives=named_objectives("flips")))
    sentence(undecided.value, "flips", "--objectives")
    with pytest.raises(UserError) as refused:
        bw.plan(own, bw.parse_budget("6bpw"), conditions=conditions)
    sentence(refused.value, "smallest file")
    with pytest.raises(ObjectiveError) as malformed:
        parse_conditions(["kl=small"], None)
    sentence(malformed.value, "kl=small")
