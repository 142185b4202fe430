"""Experts that may be dropped, from the search to the plan."""

import json
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.errors import PlanError, UserError
from bitwright.methods.by_name import method_named
from bitwright.pipeline import Fitted, Run, Search
from bitwright.pipeline.finishing.building import require_fit
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.pricing.run_space import price, uniforms
from bitwright.pipeline.searching.run_search import search_budget
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import DROP, Plan
from tests.runs import BRIEF, small
from tests.sentences import sentence
from tests.trained_mixture import COPY, ORIGINAL

pytestmark = pytest.mark.slow

MENU, KEPT = ("INT2_G32", "INT4_G32", "INT8_G32"), ("token_embd*", "output*", "*attn*")


@pytest.fixture(scope="module")
def searched_with_drops(tiny_mixtral: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = small(tiny_mixtral, target="native", formats=MENU, structure=("experts",), skip=KEPT)
    return bw.pipeline.search(settings, tmp_path_factory.mktemp("drops") / "run", n_points=3, by=BRIEF)


@pytest.fixture(scope="module")
def fitted_copies(trained_moe: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Fit of a model with two copies of an expert in each layer, at less than it has without dropping any."""
    settings = small(trained_moe, target="native", formats=MENU, structure=("experts",), skip=KEPT, n_calibration=32, sequence_length=32)
    folder = tmp_path_factory.mktemp("copies") / "run"
    return bw.fit(settings, bw.parse_budget("450KB"), folder, by=BRIEF)


def smallest_plan(run: Run) -> Plan:
    smallest = run.space.total_bytes(run.space.smallest())
    made, _ = bw.plan(run, bw.parse_budget(f"{smallest}B"))
    return made


def test_the_smallest_plan_keeps_two_experts_a_layer(searched_with_drops: Run) -> None:
    made = smallest_plan(searched_with_drops)
    dropped = [name for name, form in made.formats.items() if form == "DROP"]
    assert len(dropped) == 2 * 2 * 3
    for layer in range(2):
        assert sum(name.startswith(f"model.layers.{layer}.") for name in dropped) == 6
    assert made.size_bytes == searched_with_drops.space.total_bytes(searched_with_drops.space.smallest())


def test_no_uniform_allocation_drops_anything(searched_with_drops: Run) -> None:
    space = searched_with_drops.space
    assert "uniform DROP" not in uniforms(searched_with_drops)
    for choice in uniforms(searched_with_drops).values():
        assert not (choice == space.formats.index(DROP)).any()


def test_dropping_is_priced_by_its_divergence(searched_with_drops: Run) -> None:
    column = searched_with_drops.space.formats.index(DROP)
    offered = searched_with_drops.space.offered[:, column]
    assert offered.sum() == 4
    np.testing.assert_array_equal(searched_with_drops.table[offered, column], searched_with_drops.store.array("what dropping costs")[offered])
    assert (searched_with_drops.table[offered, column] > 0).all()
    assert np.isfinite(searched_with_drops.table[searched_with_drops.tried]).all()


def test_a_search_expands_around_choices_that_drop(tiny_mixtral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.search.strategies.auto.FAR", 0.0)
    bench = set_up(small(tiny_mixtral, target="native", formats=MENU, structure=("experts",), skip=KEPT), tmp_path, device="cpu", progress=Silent())
    run = price(bench)
    space = run.space
    budget = int(space.total_bits(space.uniform(next(form for form in space.formats if form.name == "INT2_G32"))))
    found = search_budget(bench, run, budget_bits=budget, search=Search(method_named("auto"), evaluations=12))
    assert found.spent.backward_tokens > 0
    assert (found.trials.choices == space.formats.index(DROP)).any()
    assert (space.total_bits(found.trials.choices) <= budget).all()
    run.store.close()


def test_of_two_copies_one_is_dropped_first(fitted_copies: Fitted) -> None:
    run = bw.open_run(fitted_copies.report.parent)
    space, column = run.space, run.space.formats.index(DROP)
    copies = {
        layer: [u for u, unit in enumerate(space.units) if (unit.layer, unit.expert) in {(layer, ORIGINAL), (layer, COPY)}] for layer in range(2)
    }
    for pair in copies.values():
        assert run.store.array("what dropping costs")[pair] == pytest.approx([0, 0], abs=1e-5), "the other takes all of its tokens"
        assert space.offered[pair, column].sum() == 1
    assert (space.offered[:, column].sum()) == 2 * 7, "as many as leave one"
    first = solve(space, run.table, int(space.total_bits(space.largest())) - 8).choice
    dropped = set(np.flatnonzero(first == column).tolist())
    assert dropped
    assert dropped <= {u for pair in copies.values() for u in pair}
    run.store.close()


def test_a_sensitivity_of_another_unit_is_refused(tiny_mixtral: Path, tmp_path: Path) -> None:
    settings = small(tiny_mixtral, target="native", formats=MENU, structure=("experts",), skip=KEPT, sensitivity="importance")
    with pytest.raises(UserError) as caught:
        bw.pipeline.search(settings, tmp_path, n_points=2)
    sentence(caught.value, "nats", "'importance'", "gradient")


def test_a_plan_that_leaves_too_few_experts_is_refused(searched_with_drops: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = smallest_plan(searched_with_drops)
    monkeypatch.setattr("bitwright.engines.no_engine.NoEngine.require_writable", lambda _: None)
    source = set_up(searched_with_drops.settings, searched_with_drops.folder, device="cpu", progress=Silent()).model.source
    require_fit(made, source)
    left = next(name for name, form in made.formats.items() if form != "DROP" and name.startswith("model.layers.1.mlp.experts."))
    expert = left.rpartition("_proj")[0].rpartition(".")[0]
    more = made.model_copy(update={"formats": {**made.formats, **{f"{expert}.{kind}_proj.weight": "DROP" for kind in ("gate", "up", "down")}}})
    with pytest.raises(PlanError) as caught:
        require_fit(more, source)
    sentence(caught.value, "2 experts", "layer 1 has 1 left")
    with pytest.raises(PlanError) as caught:
        require_fit(made.model_copy(update={"formats": {**made.formats, "model.layers.0.self_attn.q_proj.weight": "DROP"}}), source)
    sentence(caught.value, "only routed experts can be dropped", "model.layers.0.self_attn.q_proj.weight")


def test_what_is_built_without_experts_keeps_its_promises(fitted_copies: Fitted) -> None:
    """A twin takes over in the finished model as it did when the plan was measured."""
    assert "DROP" in fitted_copies.plan.formats.values()
    said = json.loads((fitted_copies.model / "config.json").read_text())["quantization_config"]["formats"]
    assert any(form.startswith("DROP ") for form in said.values()), "a twin that is left is named"
    assert fitted_copies.check.broken == ()
