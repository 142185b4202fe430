"""Expert report of a run of a mixture."""

from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.engines import NATIVE
from bitwright.errors import RunError, TextError
from bitwright.objectives import Routing
from bitwright.objectives.text.routing import collect_routing
from bitwright.pipeline import Run
from bitwright.pipeline.reporting.expert_uses import decode_read_bytes, expert_uses
from tests.runs import UNSEARCHED, small
from tests.runs import small as brief
from tests.sentences import sentence

pytestmark = pytest.mark.slow

MENU = ("INT2_G32", "INT4_G32")


@pytest.fixture(scope="module")
def of_experts(tiny_mixtral: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = brief(tiny_mixtral, target="native", formats=MENU)
    return bw.pipeline.search(settings, tmp_path_factory.mktemp("experts") / "run", n_points=2, by=UNSEARCHED)


def test_every_expert_has_a_row_with_its_format(of_experts: Run) -> None:
    choice = of_experts.space.smallest()
    uses = expert_uses(of_experts, of_experts.space.names(choice))
    assert [use.name for use in uses] == [f"blk.{layer}.expert.{expert}" for layer in range(2) for expert in range(4)]
    assert {use.formats for use in uses} == {("INT2_G32",)}
    assert sum(use.n_tokens for use in uses) == 2 * 2 * 8 * 24
    assert sum(use.frequency for use in uses) == pytest.approx(4)
    described = bw.pipeline.describe(of_experts)
    assert [use.n_tokens for use in described.experts] == [use.n_tokens for use in uses]
    assert (
        "experts saw fewer" in (of_experts.folder / "report.html").read_text()
        or "Every expert saw" in (of_experts.folder / "report.html").read_text()
    )


def test_without_a_plan_there_are_no_formats(of_experts: Run) -> None:
    assert {use.formats for use in expert_uses(of_experts, {})} == {()}


def test_a_stack_has_the_format_of_all_its_experts(of_experts: Run) -> None:
    names = {f"blk.0.ffn_{kind}_exps.weight": form for kind, form in (("gate", "Q4_K"), ("up", "Q4_K"), ("down", "Q6_K"))}
    assert [use.formats for use in expert_uses(of_experts, names)] == [("Q4_K", "Q6_K")] * 4 + [()] * 4


def test_an_expert_that_does_not_exist(of_experts: Run) -> None:
    with pytest.raises(RunError) as caught:
        expert_uses(of_experts, {"model.layers.1.mlp.experts.4.up_proj.weight": "INT2_G32"})
    sentence(caught.value, "expert 4 of layer 1")


def test_a_step_reads_half_of_the_experts(of_experts: Run) -> None:
    space = of_experts.space
    small, large = (of_experts.everything.uniform(NATIVE.format(name)) for name in MENU)
    (read, whole), (more, _) = (decode_read_bytes(of_experts, space.names(choice)) for choice in (small, large))
    assert whole == space.total_bytes(small)
    units = np.arange(len(small))
    added = (space.size_bits[units, large] - space.size_bits[units, small]) / 8
    shares = np.array([0.5 if unit.expert >= 0 else 0.0 if unit.kind == "token_embd" else 1.0 for unit in space.units])
    assert more - read == pytest.approx(added @ shares)
    with pytest.raises(RunError) as caught:
        decode_read_bytes(of_experts, {"model.layers.0.self_attn.q_proj.weight": "INT2_G32"})
    sentence(caught.value, "give a plan of that run")


def test_a_dense_model_has_none(searched: Run) -> None:
    assert expert_uses(searched, {}) == ()


def test_text_that_leaves_a_layer_unvisited_is_refused(tiny_mixtral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unvisited(*given: object, **named: object) -> Routing:
        found = collect_routing(*given, **named)  # type: ignore[arg-type]
        found.n_chosen[found.layer == 1] = np.array([5, 0, 0, 0])
        return found

    monkeypatch.setattr("bitwright.objectives.text.routing.collect_routing", unvisited)
    with pytest.raises(TextError) as caught:
        bw.pipeline.search(brief(tiny_mixtral, target="native", formats=MENU), tmp_path / "run", n_points=2)
    sentence(caught.value, "layer 1")


def test_where_hardly_a_token_is_read_experts_are_priced_by_force(tiny_mixtral: Path, tmp_path: Path) -> None:
    """No expert sees 32 of 24 tokens, so there is nobody to take a floor from."""
    few = {"target": "native", "formats": MENU, "n_calibration": 2, "sequence_length": 12}
    with pytest.raises(TextError):
        bw.pipeline.search(small(tiny_mixtral, **few), tmp_path / "floor", n_points=2)
    run = bw.pipeline.search(small(tiny_mixtral, **few, rare="forced"), tmp_path / "forced", n_points=2, by=UNSEARCHED)
    experts = np.array([unit.expert >= 0 for unit in run.space.units])
    assert experts.sum() == 8
    assert (run.table[experts][run.space.offered[experts]] > 0).all()
    assert bw.open_run(run.folder).settings.rare == "forced"
