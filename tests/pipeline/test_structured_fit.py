"""Structure offered in a fit: what is shipped is what was measured, within the limit, and never worse than formats alone."""

from pathlib import Path

import pytest

import bitwright as bw
from bitwright.compress import GgufSource, applied, load, open_source
from bitwright.engines import engine_named
from bitwright.engines.llama_cpp.structured_source import StructuredSource
from bitwright.errors import UserError
from bitwright.objectives import KullbackLeibler, Reference
from bitwright.pipeline.finishing.building import importance_of
from bitwright.pipeline.finishing.planned_structure import model_of
from bitwright.pipeline.verbs import Fitted
from bitwright.progress import Silent
from bitwright.spaces import Plan
from tests.runs import small
from tests.sentences import sentence

_KINDS = ("attention", "channels", "heads", "layers")


def fitted(model: Path, out: Path, budget: str, **other: object) -> Fitted:
    settings = small(model, formats=("Q8_0", "Q4_0", "Q2_K"), structure=_KINDS, **other)
    by = bw.pipeline.Search(bw.pipeline.method_named("auto"), evaluations=2)
    return bw.fit(settings, bw.parse_budget(budget), out, by=by)


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
        bw.fit(small(tiny_mixtral, structure=("layers",)), bw.parse_budget("6bpw"), tmp_path / "run")
    sentence(refused.value, "feed-forward")


def test_an_order_is_the_same_for_a_stored_plan(below_formats: Fitted, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(below_formats.plan.to_json(), encoding="utf-8")
    read: Plan = bw.read_plan(path)
    assert read == below_formats.plan
    assert open_source(read.model.source, engine_named("llama.cpp").view).fingerprint == read.model.fingerprint
