"""Plans ship the codes that were measured, also if these depend on calibration text."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.compress import load, matrix_shape, open_source
from bitwright.compress.codecs.packed_file import DIGEST_BYTES, read_packed
from bitwright.engines import NATIVE, engine_named, model_as_held, target_named
from bitwright.errors import OutputError, PlanError, RunError
from bitwright.objectives import Reference
from bitwright.pipeline import Run
from bitwright.pipeline.finishing.building import packing
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.run import CODES, LEVELS
from bitwright.progress import Silent
from bitwright.spaces import Kept, Plan, RequantizedCodes
from tests.campaign.test_surroundings import mounted
from tests.measuring import Divergence
from tests.runs import UNSEARCHED, small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

MENU, BUDGET = ("INT8_G32", "INT4_G32", "INT3_G32"), "6bpw"


@pytest.fixture(scope="module", params=["rtn", "clip", "hqq", "gptq", "gptq+clip"])
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def run(codec: str, llama_gqa: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = small(llama_gqa, target="integers", formats=MENU, codec=codec, sensitivity="importance")
    return bw.pipeline.search(settings, tmp_path_factory.mktemp("run"), n_points=2, by=UNSEARCHED)


def packed(plan: Plan, model: Path) -> dict[str, bytes]:
    """Return what `build` would write of every tensor of the plan."""
    whole = open_source(str(model), engine_named(plan.target).view)
    of = packing(plan, target_named(plan.target), whole)
    return {tensor.name: of(tensor).tobytes() for tensor in whole.tensors if tensor.name in plan.formats}


def test_a_plan_says_its_rounding_and_is_built_of_what_was_measured(run: Run, codec: str, llama_gqa: Path) -> None:
    plan, _ = bw.plan(run, bw.parse_budget(BUDGET))
    assert (plan.rounding.searched, plan.rounding.shipped) == (codec, codec)
    assert isinstance(plan.rounding, Kept if "gptq" in codec else RequantizedCodes)
    found = packed(plan, llama_gqa)
    assert len(set(plan.formats.values())) > 1
    for tensor, form in plan.formats.items():
        level = read_packed(run.folder / LEVELS / f"{tensor}.{form}", key=f"{tensor}.{form}")
        assert level is not None
        assert found[tensor] == level.tobytes()
    assert packed(bw.plan(run, bw.parse_budget(BUDGET))[0], llama_gqa) == found


def test_the_promise_is_that_of_the_bytes(run: Run, llama_gqa: Path, tmp_path: Path) -> None:
    plan, _ = bw.plan(run, bw.parse_budget(BUDGET))
    bench = set_up(run.settings, run.folder, device="cpu", progress=Silent())
    model, target = bench.model, bench.target
    codec, found = bench.levels.codec, packed(plan, llama_gqa)
    tensors = {tensor.name: tensor for tensor in model.tensors}

    def weights(name: str) -> np.ndarray:
        return codec.decode(np.frombuffer(found[name], np.uint8), target.format(plan.formats[name]), matrix_shape(tensors[name]))

    reference = Reference(model, bench.texts.held_out, scratch=tmp_path, progress=Silent())
    divergence = Divergence(model, bench.levels, space=run.space, reference=reference)
    again = divergence.with_weights({name: lambda name=name: weights(name) for name in plan.formats})  # type: ignore[misc]
    assert again == pytest.approx(plan.divergence.nats_per_token, rel=1e-6)


@pytest.fixture(scope="module")
def gptq_folder(llama_gqa: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = small(llama_gqa, target="integers", formats=MENU, codec="gptq", sensitivity="importance")
    by, folder = UNSEARCHED, tmp_path_factory.mktemp("gptq") / "run"
    bw.pipeline.search(settings, folder, n_points=2, by=by).store.close()
    return folder


@pytest.fixture
def of_gptq(gptq_folder: Path, tmp_path: Path) -> Run:
    """A copy of a run with GPTQ, to take files from."""
    return bw.open_run(Path(shutil.copytree(gptq_folder, tmp_path / "run")))


def test_codes_of_gptq_are_never_made_twice(of_gptq: Run) -> None:
    plan, _ = bw.plan(of_gptq, bw.parse_budget(BUDGET))
    shutil.rmtree(of_gptq.folder / LEVELS)
    found = packed(plan, Path(of_gptq.settings.model))
    assert len(found) == len(plan.formats)  # what was saved is still there
    again, _ = bw.plan(bw.open_run(of_gptq.folder), bw.parse_budget(BUDGET))
    assert (again.formats, again.rounding) == (plan.formats, plan.rounding)
    assert packed(again, Path(of_gptq.settings.model)) == found
    assert not (of_gptq.folder / LEVELS).exists()
    (saved,) = (of_gptq.folder / CODES).iterdir()
    data = bytearray(saved.read_bytes())
    data[-1] ^= 1
    saved.write_bytes(data)
    with pytest.raises(RunError) as caught:
        bw.plan(bw.open_run(of_gptq.folder), bw.parse_budget(BUDGET))
    sentence(caught.value, of_gptq.folder / LEVELS, "--out")
    shutil.rmtree(of_gptq.folder / CODES)
    with pytest.raises(RunError) as caught:
        bw.plan(bw.open_run(of_gptq.folder), bw.parse_budget(BUDGET))
    sentence(caught.value, of_gptq.folder / LEVELS, "--out")
    bench = set_up(of_gptq.settings, of_gptq.folder, device="cpu", progress=Silent())
    with pytest.raises(RunError) as caught:
        bench.levels.packed(bench.model.tensors[-1], target_named("integers").format("INT5_G32"))
    sentence(caught.value, of_gptq.folder)


def test_a_run_that_cannot_be_written_plans_what_it_kept(of_gptq: Run) -> None:
    plan, _ = bw.plan(of_gptq, bw.parse_budget(BUDGET))
    of_gptq.store.close()
    with mounted(of_gptq.folder, "--bind", str(of_gptq.folder)):
        subprocess.run(["mount", "-o", "remount,bind,ro", of_gptq.folder], check=True)
        again, _ = bw.plan(bw.open_run(of_gptq.folder), bw.parse_budget(BUDGET))
        assert again == plan
        with pytest.raises(OutputError) as caught:  # other codes, which would have to be kept
            bw.plan(bw.open_run(of_gptq.folder), bw.parse_budget("8bpw"))
        sentence(caught.value, of_gptq.folder)


def test_a_plan_whose_codes_are_gone_is_refused(of_gptq: Run) -> None:
    plan, _ = bw.plan(of_gptq, bw.parse_budget(BUDGET))
    shutil.rmtree(of_gptq.folder / CODES)
    with pytest.raises(PlanError, match="is not there"):
        packed(plan, Path(of_gptq.settings.model))


@pytest.mark.parametrize("shipped", ["gptq", "ggml", "awq"])
def test_a_rounding_that_cannot_be_repeated_is_refused(of_gptq: Run, shipped: str) -> None:
    plan, _ = bw.plan(of_gptq, bw.parse_budget(BUDGET))
    with pytest.raises(PlanError) as caught:
        packed(plan.model_copy(update={"rounding": RequantizedCodes(searched=shipped, shipped=shipped)}), Path(of_gptq.settings.model))
    sentence(caught.value, f"'{shipped}'", "rtn, clip, hqq")


def test_experts_apart_are_rounded_by_their_own_moments(tiny_mixtral: Path, tmp_path: Path) -> None:
    settings = small(tiny_mixtral, target="native", formats=("INT8_G32", "INT3_G32"), codec="gptq", sensitivity="importance")
    run = bw.pipeline.search(settings, tmp_path / "run", n_points=2, by=UNSEARCHED)
    plan, _ = bw.plan(run, bw.parse_budget("7bpw"))
    apart = model_as_held(load(str(tiny_mixtral), view=engine_named("native").view), NATIVE)
    of = packing(plan, target_named("native"), open_source(str(tiny_mixtral), engine_named("native").view))
    for tensor in apart.tensors:
        if tensor.name in plan.formats:
            assert of(tensor).tobytes() == (run.folder / LEVELS / f"{tensor.name}.{plan.formats[tensor.name]}").read_bytes()[:-DIGEST_BYTES]
