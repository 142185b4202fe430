"""Structure offered in a fit: what is shipped is what was measured, within the limit, and never worse than formats alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bitwright as bw
from bitwright.compress import GgufSource, applied, load, open_headers, open_source, whole_structure
from bitwright.devices import Device, Latency, read_device
from bitwright.engines import Serving, engine_named, memory_model_named
from bitwright.engines.llama_cpp.structured_source import StructuredSource
from bitwright.errors import UserError
from bitwright.methods import asked_structure
from bitwright.objectives import CostObjective, KullbackLeibler, Reference, Tokens
from bitwright.objectives.text.routing import collect_routing
from bitwright.pipeline.finishing.building import importance_of
from bitwright.pipeline.finishing.planned_structure import model_of
from bitwright.pipeline.planning.cost_limits import NO_CONDITIONS, Conditions, CostCeiling
from bitwright.pipeline.planning.costs import costs_of
from bitwright.pipeline.searching.search import named_objectives
from bitwright.pipeline.verbs import Fitted
from bitwright.progress import Silent
from bitwright.spaces import DEFAULT_CACHE, STRUCTURE_KINDS, Plan
from tests.made_once import made_once
from tests.model_fixtures import saved
from tests.runs import small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

_KINDS = ("attention", "channels", "heads", "layers")


def fitted(model: Path, out: Path, budget: str, conditions: Conditions = NO_CONDITIONS, **other: object) -> Fitted:
    settings = small(model, **{"formats": ("Q8_0", "Q4_0", "Q2_K"), "structure": _KINDS, **other})
    by = bw.pipeline.Search(bw.pipeline.method_named("auto"), evaluations=2)
    return bw.fit(settings, bw.parse_budget(budget), out, by=by, conditions=conditions)


@pytest.fixture(scope="module")
def below_formats(llama_gqa: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Fit within fewer bytes than any formats alone have."""
    return fitted(llama_gqa, tmp_path_factory.mktemp("structured") / "below", "4.9bpw")


def test_a_budget_below_the_smallest_file_of_formats_is_met(below_formats: Fitted) -> None:
    plan, note = below_formats.plan, below_formats.summary.structure
    assert note is not None
    assert note.won
    assert note.alone_nats is None
    assert "no formats alone are that small" in note.sentence
    assert below_formats.model.stat().st_size == plan.size_bytes == note.size_bytes
    assert plan.structure is not None
    assert plan.structure.compensation is not None
    assert note.as_cut is not None
    assert note.nats_per_token < note.as_cut
    assert "before what is left was refitted" in note.sentence
    assert not plan.structure.kept.trapped
    assert not below_formats.check.broken
    assert "no formats alone are that small" in below_formats.report.read_text(encoding="utf-8").replace("\u00a0", " ")


def test_what_ships_is_what_was_measured(below_formats: Fitted) -> None:
    """The divergence of the plan is that of the weights in the file, put into the original model with zeros for what is gone."""
    plan, run = below_formats.plan, bw.open_run(below_formats.report.parent)
    assert plan.structure is not None
    model = load(plan.model.source, view=engine_named(plan.target).view)
    ordered = model_of(plan, model, importance_of(plan, model.source))
    reference = Reference(model, run.held_out, scratch=run.folder, progress=Silent())
    with applied(ordered, StructuredSource(ordered.source, plan.structure.kept).widened(GgufSource(below_formats.model))):
        found = reference.measure(ordered, [KullbackLeibler()])
    assert found.mean() == pytest.approx(plan.divergence.nats_per_token, rel=1e-3)
    assert found.mean() > 0.01


def test_the_plan_is_built_again_and_verified(below_formats: Fitted, tmp_path: Path) -> None:
    path = bw.build(below_formats.plan, tmp_path / "again.gguf")
    assert path.read_bytes() == below_formats.model.read_bytes()
    assert not bw.verify(below_formats.plan, path).broken


def test_formats_alone_ship_where_they_measure_better(llama_gqa: Path, tmp_path: Path) -> None:
    found = fitted(llama_gqa, tmp_path / "run", "8bpw")
    note, plan = found.summary.structure, found.plan
    assert note is not None
    assert note.won == (plan.found.strategy == "structure and formats") == (plan.structure is not None)
    assert not found.check.broken


def test_a_memory_below_the_smallest_file_and_cache_of_formats_is_met(llama_gqa: Path, below_formats: Fitted, tmp_path: Path) -> None:
    space = bw.open_run(below_formats.report.parent).space
    anatomy = memory_model_named("llama.cpp").anatomy(open_headers(str(llama_gqa), engine_named("llama.cpp").view).least)
    needed = anatomy.use(Serving(128, 1), file_bytes=space.total_bytes(space.smallest())).total_bytes
    limit = bw.pipeline.Memory(bw.parse_budget(f"{(needed - 1000) / 1e6:.6f}MB"), 128, 1, DEFAULT_CACHE)
    settings = bw.pipeline.settings_for_limit(small(llama_gqa, formats=("Q8_0", "Q4_0", "Q2_K"), structure=("attention",)), limit)
    found = bw.fit(settings, limit, tmp_path / "run", by=bw.pipeline.Search(bw.pipeline.method_named("auto"), evaluations=2))
    plan, note = found.plan, found.summary.structure
    assert note is not None
    assert note.won
    assert note.alone_nats is None
    assert plan.structure is not None
    assert plan.structure.head_groups == (2, 0)
    used = bw.pipeline.memory_of(str(found.report.parent / "plan.json"), Serving(128, 1))
    assert used.total_bytes <= needed - 1000


@pytest.fixture
def board() -> Device:
    """A board on which Q8_0 is read at the rate of the smaller formats."""
    rates = {"Q8_0": 1e-9, "Q4_0": 1e-9, "Q2_K": 2e-9} | dict.fromkeys(("F32", "F16", "BF16"), 1e-9)
    return replace(read_device("raspberry-pi-5-8gb"), context=32, latency=Latency(rates, 1e-6, 0.01))


def within(seconds: float, device: Device) -> Conditions:
    return Conditions((CostCeiling(CostObjective.SECONDS, seconds),), device)


def seconds_of_file(path: Path, device: Device) -> float:
    """Return the seconds of a decode step as the tensors and the metadata of a GGUF file say."""
    assert isinstance(device.latency, Latency)
    source, total = GgufSource(path), device.latency.seconds_per_step
    groups = next(entry.value for entry in source.metadata if entry.key.endswith("head_count_kv"))
    groups = groups if isinstance(groups, list) else [groups] * (1 + max(int(t.name.split(".")[1]) for t in source.tensors if t.name[:4] == "blk."))
    head = next(entry.value for entry in source.metadata if entry.key.endswith(("rope.dimension_count", "attention.key_length")))
    total += device.seconds_per_token(2 * 2 * 256 * head * sum(groups))  # keys and values in half precision, in a multiple of 256 cells
    for tensor in source.tensors:
        rate = device.latency.seconds_per_byte[tensor.stored] if len(tensor.shape) > 1 else device.seconds_per_token(1)
        total += source.stored_bytes(tensor) * rate * (tensor.name != "token_embd.weight" or "output.weight" not in {t.name for t in source.tensors})
    return total


def test_decoding_faster_than_any_formats_alone_is_reached(llama_gqa: Path, below_formats: Fitted, board: Device, tmp_path: Path) -> None:
    run = bw.open_run(below_formats.report.parent)
    cost = costs_of(run).named(CostObjective.SECONDS, board)
    ceiling = 0.95 * (cost.fixed + np.where(run.space.offered, cost.table, np.inf).min(axis=1).sum())
    found = fitted(llama_gqa, tmp_path / "run", "8bpw", within(ceiling, board))
    plan, note = found.plan, found.summary.structure
    assert note is not None
    assert note.won
    assert note.decoding is not None
    assert note.decoding.alone_seconds is None
    assert "no formats alone are that small and fast" in note.sentence
    assert plan.structure is not None
    assert f"seconds-per-token at most {ceiling:,.10g}" in plan.found.budget
    assert seconds_of_file(found.model, board) == pytest.approx(note.decoding.seconds, rel=1e-9)
    assert note.decoding.seconds <= ceiling
    assert found.model.stat().st_size == plan.size_bytes
    assert not found.check.broken


def test_formats_alone_compete_within_the_same_ceiling(llama_gqa: Path, below_formats: Fitted, board: Device, tmp_path: Path) -> None:
    run = bw.open_run(below_formats.report.parent)
    cost = costs_of(run).named(CostObjective.SECONDS, board)
    ends = [cost.fixed + end(np.where(run.space.offered, cost.table, fill), axis=1).sum() for end, fill in ((np.min, np.inf), (np.max, -np.inf))]
    ceiling = 0.6 * ends[0] + 0.4 * ends[1]
    found = fitted(llama_gqa, tmp_path / "run", "8bpw", within(ceiling, board), structure=("layers",), structure_method="shortgpt")
    note, plan = found.summary.structure, found.plan
    assert note is not None
    assert note.kept
    assert note.decoding is not None
    assert note.decoding.seconds <= ceiling
    assert note.decoding.alone_seconds is not None
    assert note.decoding.alone_seconds <= ceiling * (1 + 1e-9)  # rounding of sums
    assert note.won == (plan.structure is not None)
    assert seconds_of_file(found.model, board) <= ceiling * (1 + 1e-9)
    assert "formats alone in" in note.sentence


@pytest.mark.parametrize(
    ("conditions", "objectives", "target", "words"),
    [
        (Conditions((CostCeiling(CostObjective.ACTIVE_BYTES, 1e5),)), "", "llama.cpp", "--at-most active-bytes is"),
        (NO_CONDITIONS, "kl,active-bytes", "llama.cpp", "--objectives is"),
        (within(1.0, replace(read_device("raspberry-pi-5-8gb"), engine="transformers")), "", "transformers", "known for llama.cpp alone"),
    ],
)
def test_what_structure_is_not_chosen_by_is_refused(
    conditions: Conditions, objectives: str, target: str, words: str, llama_gqa: Path, tmp_path: Path
) -> None:
    settings = small(llama_gqa, structure=("layers",), target=target, formats=())
    by = bw.pipeline.Search(bw.pipeline.method_named("auto"), evaluations=2, objectives=named_objectives(objectives))
    with pytest.raises(UserError) as refused:
        bw.fit(settings, bw.parse_budget("6bpw"), tmp_path / "run", by=by, conditions=conditions)
    sentence(refused.value, words)
    with pytest.raises(UserError) as without_end:
        bw.pipeline.fit_smallest(settings, replace(NO_CONDITIONS, nats_at_most=0.1), tmp_path / "run")
    sentence(without_end.value, "ceiling on the divergence")


def similarities(folder: Path, ids: np.ndarray) -> list[float]:
    """Return the mean cosine of the hidden states before and behind each block."""
    module, found = load(str(folder)).module, list[float]()
    for block in module.model.layers:
        block.register_forward_hook(lambda _, given, y: found.append(torch.cosine_similarity(given[0], y, dim=-1).mean().item()))
    with torch.no_grad():
        module(torch.from_numpy(ids.astype(np.int64)), use_cache=False)
    return found


def test_a_published_method_proposes_what_goes(llama_gqa: Path, tmp_path: Path) -> None:
    """Expect one of two blocks to go, that of the least influence, where the budget is below the smallest file of formats."""
    found = fitted(llama_gqa, tmp_path / "run", "4.5bpw", structure=("layers",), structure_method="shortgpt")
    plan, run = found.plan, bw.open_run(tmp_path / "run")
    assert plan.structure is not None
    assert plan.structure.ordered == ()
    assert plan.structure.kept.gone == (int(np.argmax(similarities(llama_gqa, run.store.array("calibration tokens")))),)
    assert not found.check.broken


@pytest.mark.parametrize("name", ["evopress-drops", "search-llm"])
def test_an_evolution_proposes_what_goes(name: str, model_folders: Path, llama_gqa: Path, tmp_path: Path) -> None:
    """Search with the published effort: as many attentions as feed-forward parts go, or heads, channels and blocks within a window of weights."""
    four = made_once(model_folders / "structured-fit-four", lambda place: saved(place, "llama", {"num_hidden_layers": 4}))
    model, (kinds, method) = four if name == "evopress-drops" else llama_gqa, asked_structure(name)
    found = fitted(model, tmp_path / "run", "4.5bpw" if name == "evopress-drops" else "4.9bpw", structure=kinds, structure_method=method)
    plan, whole = found.plan, whole_structure(open_source(str(model), engine_named("llama.cpp").view))
    assert plan.structure is not None
    kept = plan.structure.kept
    if name == "evopress-drops":
        assert sum(n == 0 for n in kept.head_groups) == sum(n < full for n, full in zip(kept.channels, whole.channels, strict=True)) == 1
    else:
        assert kept != whole
    assert found.model.stat().st_size == plan.size_bytes
    assert not found.check.broken


def test_the_experts_of_the_least_router_scores_go(tiny_mixtral: Path, tmp_path: Path) -> None:
    """Collaborative Compression in a GGUF file: as many experts in every layer."""
    kinds, method = asked_structure("collaborative")
    found = fitted(tiny_mixtral, tmp_path / "run", "4.7bpw", structure=kinds, structure_method=method)
    plan, run = found.plan, bw.open_run(tmp_path / "run")
    assert plan.structure is not None
    model = load(str(tiny_mixtral), view=engine_named("llama.cpp").view)
    routing = collect_routing(model, Tokens(run.store.array("calibration tokens"), ""), progress=Silent())
    for layer, kept in enumerate(plan.structure.experts):
        scores = routing.probability[routing.layer == layer]
        assert {*kept} == {*np.argsort(-scores)[: len(kept)].tolist()}
        assert len(kept) in (2, 3)
    assert found.model.stat().st_size == plan.size_bytes
    assert not found.check.broken


def test_matrices_that_are_written_as_one_get_one_format(model_folders: Path, tmp_path: Path) -> None:
    """Qwen3 with a tied head loses heads and channels as `openelm`, whose queries, keys and values are one tensor."""
    shape = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_size": 128,
        "intermediate_size": 256,
        "tie_word_embeddings": True,
    }
    model = made_once(model_folders / "structured-fit-qwen3", lambda place: saved(place, "qwen3", shape))
    found = fitted(model, tmp_path / "run", "4.3bpw", structure=("channels", "heads"), formats=("Q8_0", "Q5_0", "Q4_0"))
    plan = found.plan
    assert plan.structure is not None
    assert GgufSource(found.model).architecture == "openelm"
    for layer in range(2):
        assert len({plan.formats[f"blk.{layer}.{role}.weight"] for role in ("attn_q", "attn_k", "attn_v")}) == 1
    assert found.model.stat().st_size == plan.size_bytes
    assert not found.check.broken


def test_experts_are_taken_from_every_layer_of_a_mixture(tiny_mixtral: Path, tmp_path: Path) -> None:
    """Below the smallest file of formats, of what a mixture can lose."""
    found = fitted(tiny_mixtral, tmp_path / "run", "4.7bpw", structure=STRUCTURE_KINDS)
    plan, note = found.plan, found.summary.structure
    assert plan.structure is not None
    assert note is not None
    experts = {len(kept) for i, kept in enumerate(plan.structure.experts) if i not in plan.structure.kept.gone}
    assert len(experts) == 1
    assert experts < {2, 3} or plan.structure.kept.gone
    assert found.model.stat().st_size == plan.size_bytes
    assert not found.check.broken
    assert bw.build(plan, tmp_path / "again.gguf").read_bytes() == found.model.read_bytes()


def test_a_method_without_its_kinds_is_refused(llama_gqa: Path) -> None:
    with pytest.raises(UserError) as refused:
        small(llama_gqa, structure=("heads",), structure_method="shortgpt")
    sentence(refused.value, "shortgpt")


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"structure": ("heads",), "target": "native", "formats": ()}, "llama.cpp"), ({"structure": ("channels",), "codec": "obs"}, "obs")],
)
def test_what_cannot_be_offered_is_refused(settings: dict[str, object], words: str, llama_gqa: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        bw.fit(small(llama_gqa, **settings), bw.parse_budget("6bpw"), tmp_path / "run")
    sentence(refused.value, words)
    assert not (tmp_path / "run").exists() or not [*(tmp_path / "run").iterdir()]


def test_quantized_weights_are_not_put_in_order(gguf_quantized: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        bw.fit(small(gguf_quantized, structure=("channels",)), bw.parse_budget("4bpw"), tmp_path / "run")
    sentence(refused.value, "floats")


def test_a_mixture_is_refused_before_any_work(tiny_mixtral: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        bw.fit(small(tiny_mixtral, structure=("channels",)), bw.parse_budget("6bpw"), tmp_path / "run")
    sentence(refused.value, "experts", "layers")


def test_an_order_is_the_same_for_a_stored_plan(below_formats: Fitted, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(below_formats.plan.to_json(), encoding="utf-8")
    read: Plan = bw.read_plan(path)
    assert read == below_formats.plan
    assert open_source(read.model.source, engine_named("llama.cpp").view).fingerprint == read.model.fingerprint
