"""Steps that a plan names: measured as they ship, written as they were measured, and refused in a sentence."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import bitwright as bw
from bitwright.compress import GgufSource, applied, load, pin_weights, read_pinned_weights
from bitwright.engines import engine_named, model_as_held, target_named
from bitwright.engines.checkpoint_source import written_weights
from bitwright.errors import PlanError, RunError, UserError
from bitwright.methods.by_name import method_named
from bitwright.objectives import Reference
from bitwright.pipeline import Run, Search
from bitwright.pipeline.exchange import export
from bitwright.pipeline.finishing.router_calibration import RouterCalibration
from bitwright.pipeline.finishing.steps import step_named
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.searching.search import named_objectives
from bitwright.progress import Silent
from bitwright.report import Shipping
from bitwright.spaces import CalibratedRouters, Plan
from bitwright.written_files import digest as digest_of
from tests.measuring import Divergence
from tests.runs import small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

KEPT = ("token_embd*", "output*")
BUDGET = bw.parse_budget("450KB")
BY = Search(method_named("auto"), evaluations=0)
STEP = "router-calibration:ridge=8"


@pytest.fixture(scope="module")
def run(trained_moe: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = small(trained_moe, target="native", formats=("INT2_G32", "INT3_G32", "INT4_G32"), skip=KEPT, sequence_length=32)
    return bw.pipeline.search(settings, tmp_path_factory.mktemp("steps") / "run", n_points=2, by=BY)


@pytest.fixture(scope="module")
def made(run: Run) -> Plan:
    plan, summary = bw.plan(run, BUDGET, steps=(STEP,))
    told = summary.shipping
    assert isinstance(told, Shipping)
    assert told.shipped == f"rtn, {STEP}"
    assert plan.divergence.nats_per_token == min(candidate.shipped[0] for candidate in told.candidates)
    return plan


def test_what_is_built_is_what_was_measured(run: Run, made: Plan, tmp_path: Path) -> None:
    (step,) = made.steps
    assert step == CalibratedRouters(ridge=8.0, path=step.path, sha256=digest_of(Path(step.path)))
    routers = read_pinned_weights(Path(step.path), step.sha256)
    for name in ("first", "second"):
        bw.build(made, tmp_path / name)
    assert all((tmp_path / "first" / file.name).read_bytes() == file.read_bytes() for file in (tmp_path / "second").iterdir())
    loaded, original = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "first", dtype=torch.float32),
        load(made.model.source, view=engine_named("transformers").view),
    )
    for layer in range(2):
        router = loaded.model.layers[layer].mlp.gate.weight
        assert torch.equal(router, torch.from_numpy(routers[f"model.layers.{layer}.mlp.gate.weight"]))
        assert not torch.equal(router, original.module.model.layers[layer].mlp.gate.weight)
    bench = set_up(run.settings, run.folder, device="cpu", progress=Silent())
    reference = Reference(bench.model, bench.texts.held_out, scratch=tmp_path, progress=Silent())
    measured = Divergence(bench.model, bench.levels, space=run.space, reference=reference)
    built = engine_named("native").container(made.model.source).written(tmp_path / "first")
    found = measured.with_weights(written_weights(built, (*made.formats, *routers)))
    assert found == pytest.approx(made.divergence.nats_per_token, rel=1e-6)
    assert measured.with_weights(written_weights(built, made.formats)) != pytest.approx(found, rel=1e-3)
    assert bw.verify(made, tmp_path / "first").broken == ()


def test_a_plan_is_made_again_from_what_is_kept_and_without_the_step_too(run: Run, made: Plan) -> None:
    again, _ = bw.plan(bw.open_run(run.folder), BUDGET, steps=(STEP,))
    assert again == made
    without, _ = bw.plan(run, BUDGET)
    assert without.steps == ()
    assert without.divergence != made.divergence
    assert without.size_bytes <= 450_000 >= made.size_bytes


def test_weights_that_were_measured_and_are_gone_are_not_made_again(run: Run, made: Plan, tmp_path: Path) -> None:
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    shutil.rmtree(copy / "steps")
    with pytest.raises(RunError) as caught:
        bw.plan(bw.open_run(copy), BUDGET, steps=(STEP,))
    sentence(caught.value, "cannot be reproduced", "--out")


def test_weights_of_other_tensors_are_refused(made: Plan, tmp_path: Path) -> None:
    def with_step(weights: dict[str, np.ndarray]) -> Plan:
        path = tmp_path / "weights"
        pin_weights(path, weights)
        return made.model_copy(update={"steps": (CalibratedRouters(ridge=1.0, path=str(path), sha256=digest_of(path)),)})

    decided = next(iter(made.formats))
    for name, shape in ((decided, (64, 64)), ("model.layers.9.mlp.gate.weight", (8, 64)), ("model.layers.0.mlp.gate.weight", (7, 64))):
        with pytest.raises(PlanError) as caught:
            bw.build(with_step({name: np.zeros(shape, dtype=np.float32)}), tmp_path / "model")
        sentence(caught.value, "router-calibration", name)
    assert not (tmp_path / "model").exists()


def test_no_other_tool_is_told_of_steps(made: Plan) -> None:
    with pytest.raises(PlanError) as caught:
        export(made, "gptqmodel")
    sentence(caught.value, "gptqmodel", "router-calibration", "--step")


@pytest.mark.parametrize(
    ("target", "formats", "extra"),
    [
        ("llama.cpp", ("Q8_0", "Q4_0"), {}),
        ("transformers", ("W8_G32", "W4_G32", "BF16"), {"skip": ("token_embd*",)}),
        ("native", ("INT3_G32", "INT6_G32"), {"ship_codec": "gptq"}),
        ("native-channels", ("INT3_G32", "INT6_G32"), {"ship_codec": "gptq", "structure": ("channels",)}),
    ],
)
def test_a_step_follows_any_rounding_into_any_container(
    target: str, formats: tuple[str, ...], extra: dict[str, Any], one_block_mixtral: Path, tmp_path: Path
) -> None:
    settings = small(one_block_mixtral, target=target, formats=formats, sensitivity="importance", steps=("router-calibration",), **extra)
    fitted = bw.fit(settings, bw.parse_budget("9bpw"), tmp_path / "run", by=BY)
    assert fitted.check.broken == ()
    (step,) = fitted.plan.steps
    routers = read_pinned_weights(Path(step.path), step.sha256)
    if target == "llama.cpp":
        source = GgufSource(fitted.model)
        found = {tensor.name: source.read(tensor) for tensor in source.tensors if tensor.name in routers}
        assert all(np.array_equal(found[name], router) for name, router in routers.items())
    elif target == "transformers":
        loaded = AutoModelForCausalLM.from_pretrained(fitted.model, dtype=torch.float32)
        found = {name: loaded.model.layers[int(name.split(".")[2])].mlp.gate.weight.detach().numpy() for name in routers}
        assert all(np.array_equal(found[name], router) for name, router in routers.items())
    else:
        assert fitted.plan.rounding.shipped == "gptq (sequential)"
        model = model_as_held(load(str(one_block_mixtral), view=engine_named(target).view), target_named(target))
        built = engine_named(target).container(str(one_block_mixtral)).written(fitted.model)
        with applied(model, written_weights(built, routers)):
            assert all(np.array_equal(model.module.get_parameter(model.pieces[name][0].parameter), router) for name, router in routers.items())


def test_a_method_brings_its_step(tiny_mixtral: Path, tmp_path: Path) -> None:
    settings = small(tiny_mixtral, target="native", formats=("INT2_G32", "INT3_G32", "INT4_G32"), skip=KEPT, n_calibration=10, sequence_length=12)
    by = Search(method_named("eac-moe"), evaluations=4)
    run = bw.pipeline.search(settings, tmp_path / "run", n_points=2, by=by)
    assert bw.open_run(run.folder).settings.steps == ("router-calibration",)
    plan, _ = bw.plan(run, bw.parse_budget("8bpw"))
    assert [step.ridge for step in plan.steps] == [RouterCalibration().ridge]
    named = bw.Settings(str(tiny_mixtral), steps=(STEP,))
    assert named.shipping == f"ggml, {STEP}"


def test_a_dense_model_is_refused(llama_96: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        bw.fit(small(llama_96, steps=("router-calibration",), sensitivity="importance"), bw.parse_budget("6bpw"), tmp_path, by=BY)
    sentence(caught.value, "step router-calibration", "needs a mixture of experts")


@pytest.mark.parametrize(
    "words", ["router", "router-calibration:lambda=1", "router-calibration:ridge=0", "router-calibration:ridge=x", "router-calibration:ridge=inf"]
)
def test_words_that_name_no_step_are_refused(words: str, tiny_mixtral: Path) -> None:
    with pytest.raises(UserError) as caught:
        bw.Settings(str(tiny_mixtral), steps=(words,))
    sentence(caught.value, "router-calibration", words.rpartition("=")[2])


def test_a_step_is_read_as_it_is_written() -> None:
    assert step_named("router-calibration") == RouterCalibration()
    assert step_named(RouterCalibration(2.5).words) == RouterCalibration(2.5)


def test_objectives_cannot_choose_what_steps_change(tiny_mixtral: Path, tmp_path: Path) -> None:
    by = Search(method_named("auto"), evaluations=0, objectives=named_objectives("flips"))
    with pytest.raises(UserError) as caught:
        bw.fit(small(tiny_mixtral, steps=("router-calibration",)), BUDGET, tmp_path, by=by)
    sentence(caught.value, "--step", "--objectives")
