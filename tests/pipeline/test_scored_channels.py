"""Channels in the order of a method's own scores: the file of scores makes the same order for what ships, and is made once."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.compress import Source, open_source, part_order, read_imatrix, read_pinned_weights
from bitwright.engines import engine_named
from bitwright.errors import PlanError, RunError, UserError
from bitwright.methods import asked_structure
from bitwright.methods.published_channels import BY_CHANNELS
from bitwright.pipeline.finishing.planned_structure import order_of
from bitwright.pipeline.verbs import Fitted
from bitwright.spaces import PlannedStructure, read_plan
from tests.runs import UNSEARCHED, small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

SCORES = Path("steps") / "channel-scores.safetensors"
BUDGET = bw.parse_budget("4.2bpw")


def settings(model: Path, name: str, **other: object) -> bw.Settings:
    kinds, method = asked_structure(name)
    return small(model, **{"formats": ("Q8_0", "Q4_0"), "structure": kinds, "structure_method": method, **other})


@pytest.fixture(scope="module", params=[method.name for method in BY_CHANNELS])
def fitted(request: pytest.FixtureRequest, llama_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Fit within fewer bytes than any formats alone have."""
    out = tmp_path_factory.mktemp("scored") / request.param
    return bw.fit(settings(llama_256, request.param), BUDGET, out, by=UNSEARCHED)


@pytest.fixture(scope="module")
def by_kfac(llama_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return bw.fit(settings(llama_256, "kfac"), BUDGET, tmp_path_factory.mktemp("scored") / "kfac", by=UNSEARCHED)


def structure_of(found: Fitted) -> PlannedStructure:
    assert found.plan.structure is not None
    return found.plan.structure


def source_of(found: Fitted) -> Source:
    return open_source(found.plan.model.source, engine_named("llama.cpp").view)


def test_the_channels_of_the_greatest_scores_are_kept(fitted: Fitted) -> None:
    kept, out = structure_of(fitted), fitted.report.parent
    assert kept.scores is not None
    assert (kept.scores.method, Path(kept.scores.path)) == (out.name, out / SCORES)
    assert sum(kept.channels) < 1024
    scores = read_pinned_weights(out / SCORES, kept.scores.sha256)
    source = source_of(fitted)
    importance = read_imatrix(Path(fitted.plan.importance.path), source.tensors)
    order = order_of(kept, source, importance)
    for layer, n_kept in enumerate(kept.channels):
        values = scores[f"blk.{layer}.ffn_down.weight"][0]
        first = order.columns[f"blk.{layer}.ffn_down.weight"][:n_kept]
        assert values[first].min() >= np.delete(values, first).max(initial=-np.inf)
        assert (order.rows[f"blk.{layer}.ffn_gate.weight"][:n_kept] == first).all()
    assert order.digest == kept.order
    assert part_order(source, importance, kept.ordered).digest != kept.order


def test_the_plan_is_built_again_and_verified(fitted: Fitted, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(fitted.plan.to_json(), encoding="utf-8")
    path = bw.build(read_plan(tmp_path / "plan.json"), tmp_path / "again.gguf")
    assert path.read_bytes() == fitted.model.read_bytes()
    assert not bw.verify(fitted.plan, path).broken
    assert not fitted.check.broken


def test_a_run_that_goes_on_does_not_score_again(by_kfac: Fitted, tmp_path: Path) -> None:
    out = Path(shutil.copytree(by_kfac.report.parent, tmp_path / "run"))
    again = bw.fit(settings(Path(by_kfac.plan.model.source), "kfac"), BUDGET, out, by=UNSEARCHED)
    assert [name for name, *_ in bw.open_run(out).store.stages()].count("channel scores") == 1
    assert structure_of(again).order == structure_of(by_kfac).order
    assert again.model.read_bytes() == by_kfac.model.read_bytes()


def test_changed_scores_are_refused(by_kfac: Fitted, tmp_path: Path) -> None:
    out, kept = Path(shutil.copytree(by_kfac.report.parent, tmp_path / "run")), structure_of(by_kfac)
    assert kept.scores is not None
    moved = kept.model_copy(update={"scores": kept.scores.model_copy(update={"path": str(out / SCORES)})})
    plan = by_kfac.plan.model_copy(update={"structure": moved})
    assert bw.build(plan, tmp_path / "same.gguf").read_bytes() == by_kfac.model.read_bytes()
    with (out / SCORES).open("ab") as file:
        file.write(b"more")
    with pytest.raises(PlanError) as refused:
        bw.build(plan, tmp_path / "model.gguf")
    sentence(refused.value, SCORES.name, "changed")
    with pytest.raises(RunError) as stopped:
        bw.fit(settings(Path(plan.model.source), "kfac"), BUDGET, out, by=UNSEARCHED)
    sentence(stopped.value, SCORES.name, "scores of channels")


def test_a_plan_without_scores_is_as_it_was(by_kfac: Fitted, tmp_path: Path) -> None:
    """A plan by energy has no key of scores, and one that was written before there were any is read and ordered the same."""
    source, kept = source_of(by_kfac), structure_of(by_kfac)
    importance = read_imatrix(Path(by_kfac.plan.importance.path), source.tensors)
    by_energy = kept.model_copy(update={"scores": None, "order": part_order(source, importance, kept.ordered).digest})
    plan = by_kfac.plan.model_copy(update={"structure": by_energy})
    assert "scores" not in json.loads(plan.to_json())["structure"]
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    read = read_plan(tmp_path / "plan.json").structure
    assert read == by_energy
    assert order_of(by_energy, source, importance).digest == by_energy.order


@pytest.mark.parametrize(
    ("model", "target", "words"),
    [
        ("tiny_mixtral", "llama.cpp", ("with experts", "layers,experts")),
        ("llama_256", "transformers", ("channels",)),
        ("llama_256", "native", ("channels",)),
        ("tiny_mixtral", "native-channels", ("camera", "--structure channels")),
    ],
)
def test_what_cannot_lose_channels_is_refused(
    model: str, target: str, words: tuple[str, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        bw.fit(settings(request.getfixturevalue(model), "camera", target=target, formats=()), BUDGET, tmp_path / "run")
    sentence(refused.value, *words)
    assert not (tmp_path / "run").exists() or not [*(tmp_path / "run").iterdir()]
