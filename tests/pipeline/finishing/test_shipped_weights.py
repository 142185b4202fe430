"""A plan that was searched with one rounding ships with another, which its promise is then of."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import bitwright as bw
from bitwright.compress import PackedTensors, applied, integer_codec, load, matrix_shape, open_source
from bitwright.compress.codecs.rounding.gptq import Gptq
from bitwright.engines import engine_named, target_named
from bitwright.engines.no_engine import INTEGERS
from bitwright.errors import RunError, UserError
from bitwright.objectives import Reference, collect_moments
from bitwright.pipeline import Run
from bitwright.pipeline.finishing.building import packing
from bitwright.pipeline.finishing.shipped_weights import shipped_folder
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.planning.candidates import make_plan
from bitwright.pipeline.planning.held_out import measure_candidates
from bitwright.pipeline.run import CODES, SHIPPED
from bitwright.progress import Silent
from bitwright.report import Shipping
from bitwright.spaces import Kept, Plan, RequantizedCodes
from tests.measuring import Divergence
from tests.runs import UNSEARCHED, small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

BUDGET = bw.parse_budget("6bpw")


@pytest.fixture(scope="module")
def of_search(llama_gqa: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search."""
    settings = small(llama_gqa, target="integers", formats=("INT8_G32", "INT4_G32", "INT3_G32"), sensitivity="importance")
    folder = tmp_path_factory.mktemp("search") / "run"
    bw.pipeline.search(settings, folder, n_points=2, by=UNSEARCHED).store.close()
    return folder


@pytest.fixture
def run(of_search: Path, tmp_path: Path) -> Run:
    """A copy, in which nothing has shipped yet."""
    return bw.open_run(Path(shutil.copytree(of_search, tmp_path / "run")))


def packed(plan: Plan) -> dict[str, bytes]:
    whole = open_source(plan.model.source)
    of = packing(plan, INTEGERS, whole)
    return {tensor.name: of(tensor).tobytes() for tensor in whole.tensors if tensor.name in plan.formats}


def divergence_of(run: Run, plan: Plan, scratch: Path) -> float:
    """Measure the very bytes that `build` would write, on the run's held-out text."""
    bench = set_up(run.settings, run.folder, device="cpu", progress=Silent())
    tensors, found = {tensor.name: tensor for tensor in bench.model.tensors}, packed(plan)

    def weights(name: str) -> np.ndarray:
        return integer_codec().decode(np.frombuffer(found[name], np.uint8), INTEGERS.format(plan.formats[name]), matrix_shape(tensors[name]))

    reference = Reference(bench.model, bench.texts.held_out, scratch=scratch, progress=Silent())
    measured = Divergence(bench.model, bench.levels, space=run.space, reference=reference)
    return measured.with_weights({name: lambda name=name: weights(name) for name in plan.formats})  # type: ignore[misc]


@pytest.mark.parametrize(("word", "shipped"), [("gptq", "gptq (sequential)"), ("gptq+clip", "gptq+clip (sequential)"), ("clip", "clip")])
def test_candidates_are_measured_again_and_the_best_of_them_ships(run: Run, word: str, shipped: str, tmp_path: Path) -> None:
    plan, summary = bw.plan(run, BUDGET, ship_codec=word)
    assert isinstance(plan.rounding, RequantizedCodes if word == "clip" else Kept)
    assert (plan.rounding.searched, plan.rounding.shipped) == ("rtn", shipped)
    assert divergence_of(run, plan, tmp_path) == pytest.approx(plan.divergence.nats_per_token, rel=1e-6)
    told = summary.shipping
    assert isinstance(told, Shipping)
    assert (told.searched, told.shipped) == ("rtn", shipped)
    assert plan.divergence.nats_per_token == min(candidate.shipped[0] for candidate in told.candidates)
    assert [candidate.label for candidate in told.candidates if candidate.chosen] == [plan.found.strategy]
    assert any(candidate.label.startswith("uniform") for candidate in told.candidates)
    assert -1 <= told.kendall <= told.spearman <= 1 or len(told.candidates) < 3
    assert summary.chosen.measured.nats_per_token == plan.divergence.nats_per_token  # type: ignore[union-attr]
    again, _ = bw.plan(bw.open_run(run.folder), BUDGET, ship_codec=word)
    assert again == plan
    assert packed(again) == packed(plan)


def test_each_block_saw_the_error_of_those_before_it(run: Run) -> None:
    """The codes of the last block are those of GPTQ by the moments that the rounded blocks before it give."""
    plan, _ = bw.plan(run, BUDGET, ship_codec="gptq")
    bench = set_up(run.settings, run.folder, device="cpu", progress=Silent())
    model, found = load(plan.model.source), packed(plan)
    tensors = {tensor.name: tensor for tensor in model.tensors}
    name = "blk.1.attn_q.weight"

    def weights(tensor: str) -> np.ndarray:
        return integer_codec().decode(np.frombuffer(found[tensor], np.uint8), INTEGERS.format(plan.formats[tensor]), matrix_shape(tensors[tensor]))

    before = {tensor: lambda tensor=tensor: weights(tensor) for tensor in plan.formats if tensor.startswith(("token_embd", "blk.0."))}
    moments = {}
    for changed in ({}, before):
        with torch.no_grad(), applied(model, changed), collect_moments(model, [name]) as gathered:  # type: ignore[arg-type]
            for ids in bench.texts.calibration.batches(8):
                model.module(torch.from_numpy(ids), use_cache=False)
        moments[bool(changed)] = gathered
    made = {}
    for rounded, of in moments.items():
        levels = PackedTensors(Path(), model.source, integer_codec(Gptq(of)), bench.levels.importance)
        made[rounded] = levels.encode(tensors[name], INTEGERS.format(plan.formats[name])).tobytes()
    assert found[name] == made[True] != made[False]


def test_a_run_that_ships_as_it_was_searched_says_so(run: Run) -> None:
    plan, summary = bw.plan(run, BUDGET)
    assert summary.shipping is None
    same, _ = bw.plan(run, BUDGET, ship_codec="rtn")
    assert same == plan
    assert not (run.folder / SHIPPED).exists()


def test_bytes_that_were_measured_and_are_gone_are_not_made_again(run: Run) -> None:
    plan, _ = bw.plan(run, BUDGET, ship_codec="gptq")
    found = packed(plan)
    shutil.rmtree(run.folder / SHIPPED)
    again, _ = bw.plan(run, BUDGET, ship_codec="gptq")  # of the codes that were saved for the first
    assert again.rounding == plan.rounding
    assert packed(again) == found
    assert not (run.folder / SHIPPED).exists()
    shutil.rmtree(run.folder / CODES)
    with pytest.raises(RunError, match="cannot be reproduced"):
        bw.plan(run, BUDGET, ship_codec="gptq")


def test_a_search_goes_on_whatever_ships(run: Run) -> None:
    other = replace(run.settings, ship_codec="gptq+clip")
    set_up(other, run.folder, device="cpu", progress=Silent())
    assert bw.open_run(run.folder).settings.shipped == "gptq+clip (sequential)"


def test_words_that_cannot_be_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        bw.plan(run, BUDGET, ship_codec="awq")
    sentence(caught.value, "'awq'", "gptq")
    settings = bw.Settings(run.settings.model, ship_codec="")
    with pytest.raises(UserError) as caught:
        replace(settings, ship_codec="gptq")
    sentence(caught.value, "ggml, obs", "llama.cpp")
    both = replace(UNSEARCHED, objectives=bw.pipeline.named_objectives("flips"))
    settings = small(run.settings.model, target="transformers", formats=("W8_G32", "W4_G32"), ship_codec="gptq")
    with pytest.raises(UserError) as caught:
        bw.fit(settings, BUDGET, tmp_path / "o", by=both)
    sentence(caught.value, "--ship-codec", "--objectives")


@pytest.mark.parametrize(("codec", "ship_codec"), [("gptq", ""), ("rtn", "gptq+clip"), ("rtn", "hqq")])
def test_a_checkpoint_is_built_of_the_very_bytes_again_and_again(llama_gqa: Path, tmp_path: Path, codec: str, ship_codec: str) -> None:
    settings = small(llama_gqa, target="transformers", formats=("W8_G32", "W3_G32"), sensitivity="importance", codec=codec, ship_codec=ship_codec)
    run = bw.pipeline.search(settings, tmp_path / "run", n_points=2, by=UNSEARCHED)
    plan, _ = bw.plan(run, bw.parse_budget("10bpw"))
    for name in ("first", "second"):
        bw.build(plan, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "second").iterdir())
    assert all((tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes() for name in files)
    bench = set_up(run.settings, run.folder, device="cpu", progress=Silent())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "first", dtype=torch.float32)
    ids = torch.from_numpy(bench.texts.held_out.ids)
    with torch.no_grad():
        p, q = (module(ids, use_cache=False).logits.float().log_softmax(dim=-1) for module in (bench.model.module, loaded))
    assert float((p.exp() * (p - q)).sum(dim=-1).mean()) == pytest.approx(plan.divergence.nats_per_token, rel=1e-3)


def test_a_dropped_expert_is_gone_while_the_others_are_rounded(tiny_mixtral: Path, tmp_path: Path) -> None:
    settings = small(tiny_mixtral, target="native", formats=("INT8_G32", "INT3_G32"), structure=("experts",), ship_codec="gptq")
    run = bw.pipeline.search(settings, tmp_path / "run", n_points=2, by=UNSEARCHED)
    space = run.space
    names = {form.name: f for f, form in enumerate(space.formats)}
    choice = np.full(len(space.units), names["INT3_G32"])
    gone = next(u for u, unit in enumerate(space.units) if unit.layer == 0 and unit.expert == 1)
    choices = [choice, choice.copy()]
    choices[1][gone] = names["DROP"]
    bench = set_up(settings, run.folder, device="cpu", progress=Silent())
    measure_candidates(bench, run, choices)
    folders = [shipped_folder(run, space.names(each)) for each in choices]
    dropped = {tensor.name for tensor in space.units[gone].tensors}
    files = [{path.name for path in folder.iterdir()} for folder in folders]
    assert files[0] - files[1] == {f"{name}.INT3_G32" for name in dropped}
    differ = {name for name in files[1] if (folders[0] / name).read_bytes() != (folders[1] / name).read_bytes()}
    experts = {name for name in differ if ".experts." in name and name.startswith("model.layers.0.")}
    assert experts  # their tokens are others now
    assert not any(name.startswith("model.layers.0.self_attn") for name in differ)
    formats = space.names(choices[1])
    plan = make_plan(run, budget="none", strategy="by hand", measurement=run.shipped[tuple(choices[1].tolist())])
    of = packing(plan, target_named("native"), open_source(str(tiny_mixtral), engine_named("native").view))
    assert all(len(of(tensor)) == 0 for tensor in bench.model.tensors if formats.get(tensor.name) == "DROP")
