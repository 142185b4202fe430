"""Steps that move channels: measured as they ship, written as they were measured, and left out where they do not help."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import bitwright as bw
from bitwright.compress import GgufSource, applied, load
from bitwright.engines import engine_named, moved_source
from bitwright.errors import PlanError, RunError, UserError
from bitwright.methods.by_name import method_named
from bitwright.objectives import KullbackLeibler, Reference
from bitwright.pipeline import Run, Search
from bitwright.pipeline.finishing.channel_fitting import ReadChannels
from bitwright.pipeline.verbs import Fitted
from bitwright.progress import Silent
from bitwright.spaces import MovedChannels, PlannedStructure
from tests.model_fixtures import saved
from tests.runs import small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

_BUDGET = bw.parse_budget("5.5bpw")
_BY = Search(method_named("auto"), evaluations=0)
_SHAPE = {"num_attention_heads": 8, "num_key_value_heads": 2}
_SETTINGS = {"formats": ("Q4_0", "Q8_0"), "sensitivity": "importance"}


@pytest.fixture(scope="module")
def uneven(model_folders: Path) -> Path:
    """Llama whose channels before down are of very different sizes, and its weights that read them of the inverse sizes."""
    folder = model_folders / "uneven"
    if not folder.exists():
        saved(folder, "llama", _SHAPE)
        model = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            for i, block in enumerate(model.model.layers):
                sizes = torch.exp(1.5 * torch.randn(block.mlp.up_proj.out_features, generator=torch.Generator().manual_seed(i)))
                block.mlp.up_proj.weight *= sizes[:, None]
                block.mlp.down_proj.weight /= sizes
        model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["obs", "obs sequential"])
def made(request: pytest.FixtureRequest, uneven: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    codec = {"obs": {"codec": "obs"}, "obs sequential": {"ship_codec": "obs"}}[request.param]
    return bw.fit(small(uneven, **_SETTINGS, **codec, steps=("scale",)), _BUDGET, tmp_path_factory.mktemp("moved") / "run", by=_BY)


def test_a_step_that_helps_ships(made: Fitted) -> None:
    (note,), (step,) = made.summary.steps, made.plan.steps
    assert note.ships
    assert note.nats_per_token == made.plan.divergence.nats_per_token < 0.9 * note.alone_nats
    assert isinstance(step, MovedChannels)
    assert step.step == "scale"
    assert made.check.broken == ()
    assert made.model.stat().st_size == made.plan.size_bytes
    assert note.sentence in made.report.read_text(encoding="utf-8").replace("\u00a0", " ")


def test_the_file_is_what_was_measured(made: Fitted, uneven: Path, tmp_path: Path) -> None:
    """The divergence of the plan is that of the file's weights among the original's, whose channels are where they were."""
    model, built = load(str(uneven), view=engine_named("llama.cpp").view), GgufSource(made.model)
    moved = moved_source(made.plan, model.source)
    assert moved is not None
    reference = Reference(model, bw.open_run(made.report.parent).held_out, scratch=tmp_path, progress=Silent())
    with applied(model, {t.name: lambda t=t: moved.restored(t.name, built.read(t)) for t in built.tensors if t.name in model.pieces}):
        found = reference.measure(model, [KullbackLeibler()])
    with applied(model, {t.name: lambda t=t: built.read(t) for t in built.tensors if t.name in model.pieces}):
        as_it_stands = reference.measure(model, [KullbackLeibler()])
    reference.discard()
    assert found.mean() == pytest.approx(made.plan.divergence.nats_per_token, rel=1e-4)
    assert as_it_stands.mean() > 1.1 * found.mean()  # norms are not in the module


def test_the_plan_is_built_again_and_verified(made: Fitted, tmp_path: Path) -> None:
    path = bw.build(made.plan, tmp_path / "again.gguf")
    assert path.read_bytes() == made.model.read_bytes()
    assert bw.verify(made.plan, path).broken == ()


def test_a_plan_with_structure_too_is_refused(made: Fitted, tmp_path: Path) -> None:
    whole = PlannedStructure(head_groups=(2, 2), channels=(96, 96))
    with pytest.raises(PlanError) as caught:
        bw.build(made.plan.model_copy(update={"structure": whole}), tmp_path / "model.gguf")
    sentence(caught.value, "scale", "not both")


def test_the_plan_is_made_again_and_without_the_step_too(made: Fitted) -> None:
    run = bw.open_run(made.report.parent)
    again, summary = bw.plan(run, _BUDGET)
    assert again == made.plan
    assert summary.steps == made.summary.steps


@pytest.fixture(scope="module")
def run(uneven: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return bw.pipeline.search(small(uneven, **_SETTINGS), tmp_path_factory.mktemp("moved") / "searched", n_points=2, by=_BY)


def test_steps_are_added_one_after_another(run: Run, tmp_path: Path) -> None:
    plan, summary = bw.plan(run, _BUDGET, steps=("order-channels", "scale", "rotate"))
    assert [note.steps for note in summary.steps] == ["order-channels", "order-channels, scale", "order-channels, scale, rotate"]
    least = min(note.nats_per_token for note in summary.steps)
    assert [note.nats_per_token == least for note in summary.steps] == [note.ships for note in summary.steps]
    assert plan.divergence.nats_per_token == least
    shipped = next(note.steps for note in summary.steps if note.ships)
    assert ", ".join(step.step for step in plan.steps) == shipped
    assert bw.verify(plan, bw.build(plan, tmp_path / "model.gguf")).broken == ()
    assert bw.plan(run, _BUDGET)[0].steps == ()


def test_a_step_that_does_not_help_is_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose maps are those of the largest error: the plan without it ships, and says so."""
    error = ReadChannels.error
    monkeypatch.setattr(ReadChannels, "error", lambda self, by: -error(self, by))
    plan, summary = bw.plan(run, bw.parse_budget("6bpw"), steps=("scale",))
    (note,) = summary.steps
    assert note.nats_per_token > note.alone_nats == plan.divergence.nats_per_token
    assert plan.steps == ()
    assert "ships without" in note.sentence


def test_maps_that_are_gone_are_not_fitted_again(run: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    plan, _ = bw.plan(bw.open_run(copy), _BUDGET, steps=("scale",))
    (step,) = plan.steps
    shutil.rmtree(copy / "steps")
    with pytest.raises(RunError) as caught:
        bw.plan(bw.open_run(copy), _BUDGET, steps=("scale",))
    sentence(caught.value, "cannot be reproduced", "--out")
    with pytest.raises(PlanError) as unbuilt:
        bw.build(plan, tmp_path / "model.gguf")
    sentence(unbuilt.value, step.path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": ("scales",)}, ("scale", "'scales'")),
        ({"steps": ("scale", "scale")}, ("scale", "twice")),
        ({"steps": ("scale",), "target": "native", "formats": ()}, ("llama.cpp", "native")),
        ({"steps": ("rotate",), "cache_types": "q8_0"}, ("rotate", "--cache-types")),
        ({"steps": ("scale",), "structure": ("layers",)}, ("scale", "--structure")),
    ],
)
def test_settings_that_have_no_step_are_refused(settings: dict[str, Any], words: tuple[str, ...], uneven: Path) -> None:
    with pytest.raises(UserError) as caught:
        small(uneven, **settings)
    sentence(caught.value, *words)


def test_models_that_have_no_step_are_refused_before_work(tiny_mixtral: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        bw.fit(small(tiny_mixtral, **_SETTINGS, steps=("scale",)), _BUDGET, tmp_path / "run", by=_BY)
    sentence(caught.value, "ffn_gate.weight", "leave the step out")
    assert not (tmp_path / "run").exists()
