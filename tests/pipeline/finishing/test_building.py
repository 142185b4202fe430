import hashlib
from pathlib import Path
from typing import Any

import pytest

import bitwright as bw
from bitwright.compress import GgufSource, open_source
from bitwright.engines import target_named
from bitwright.errors import BrokenPromiseError, ModelError, OutputError, PlanError
from bitwright.pipeline import Run
from bitwright.spaces import Plan
from tests.fits import Fit
from tests.runs import leftovers, small
from tests.sentences import sentence

pytestmark = pytest.mark.slow


def changed(plan: Plan, **other: Any) -> Plan:
    return plan.model_copy(update=other)


def refused_by(kind: type[Exception], plan: Plan, out: Path, *values: object) -> None:
    with pytest.raises(kind) as refused:
        bw.build(plan, out)
    sentence(refused.value, *values)
    assert not out.is_file()
    assert not leftovers(out.parent) if out.parent.is_dir() else True


def test_a_plan_builds_the_same_file_again(fit: Fit, tmp_path: Path) -> None:
    bw.build(fit.fitted.plan, tmp_path / "deep" / "again.gguf")
    assert (tmp_path / "deep" / "again.gguf").read_bytes() == fit.fitted.model.read_bytes()


def test_every_format_of_the_target_can_be_built(fit_of_gguf: Fit, tmp_path: Path) -> None:
    """Tensors of one kind in each of the formats that are quick to make; all others stay as the plan has them."""
    plan, source = fit_of_gguf.fitted.plan, open_source(fit_of_gguf.settings.model)
    names = [form.name for form in target_named("llama.cpp").formats if not form.name.startswith(("IQ1", "IQ2", "IQ3"))]
    matrices = [tensor for tensor in source.tensors if len(tensor.shape) > 1]
    formats = {tensor.name: names[i % len(names)] for i, tensor in enumerate(matrices)}
    sizes = {form.name: form for form in target_named("llama.cpp").formats}
    grown = sum(
        target_named("llama.cpp").stored_bytes(tensor.shape, sizes[formats[tensor.name]])
        - target_named("llama.cpp").stored_bytes(tensor.shape, sizes[tensor.stored])
        for tensor in matrices
    )
    bw.build(changed(plan, formats=formats, size_bytes=Path(fit_of_gguf.settings.model).stat().st_size + grown), tmp_path / "m.gguf")
    assert {tensor.name: tensor.stored for tensor in GgufSource(tmp_path / "m.gguf").tensors if tensor.name in formats} == formats
    assert len(set(formats.values())) == len(names)


def test_a_plan_for_one_file_is_built_in_parts_whose_headers_are_counted(fit_of_gguf: Fit, tmp_path: Path) -> None:
    plan, one = fit_of_gguf.fitted.plan, GgufSource(fit_of_gguf.fitted.model)
    first = bw.build(plan, tmp_path / "m.gguf", split_max_bytes=2**18)
    several = GgufSource(first)
    assert [(tensor, several.stored(tensor).tobytes()) for tensor in several.tensors] == [(t, one.stored(t).tobytes()) for t in one.tensors]
    assert len(several.parts) > 1
    assert max(part.stat().st_size for part in several.parts) <= 2**18
    assert not (tmp_path / "m.gguf").exists()
    checked = bw.verify(plan, first)
    assert not checked.broken
    found = sum(part.stat().st_size for part in several.parts)
    assert f"{found:,} bytes" in {row[0]: row[2] for row in checked.rows}["size"]
    assert plan.size_bytes < found < plan.size_bytes + 10_000


def test_a_changed_part_is_noticed_and_one_that_another_wrote_is_kept(fit_of_gguf: Fit, tmp_path: Path) -> None:
    plan = fit_of_gguf.fitted.plan
    parts = GgufSource(bw.build(plan, tmp_path / "m.gguf", split_max_bytes=2**18)).parts
    words = bytearray(parts[1].read_bytes())
    words[-1] ^= 1
    parts[1].write_bytes(words)
    with pytest.raises(BrokenPromiseError) as noticed:
        bw.verify(plan, parts[0])
    sentence(noticed.value, parts[1])
    with pytest.raises(OutputError) as refused:
        bw.build(plan, tmp_path / "m.gguf", split_max_bytes=2**18)
    sentence(refused.value, parts[1])
    assert parts[1].read_bytes() == words


def test_a_name_of_a_part_is_no_name_for_a_model(fit_of_gguf: Fit, tmp_path: Path) -> None:
    made = fit_of_gguf.fitted.plan
    first = bw.build(made, tmp_path / "m.gguf", split_max_bytes=2**18)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError) as refused:
        bw.build(made, first)
    sentence(refused.value, first.name, "--split-max-size")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_plan_for_another_model_is_refused(fit_of_gguf: Fit, searched: Run, tmp_path: Path) -> None:
    plan = fit_of_gguf.fitted.plan
    other = plan.model.model_copy(update={"source": searched.settings.model})
    refused_by(PlanError, changed(plan, model=other), tmp_path / "m.gguf", "fingerprint", plan.model.fingerprint[:12])


def test_a_plan_whose_model_is_gone_is_refused(fit_of_gguf: Fit, tmp_path: Path) -> None:
    gone = fit_of_gguf.fitted.plan.model.model_copy(update={"source": str(tmp_path / "gone.gguf")})
    refused_by(ModelError, changed(fit_of_gguf.fitted.plan, model=gone), tmp_path / "m.gguf", tmp_path / "gone.gguf")


@pytest.mark.parametrize(
    ("tensor", "form", "values"),
    [
        ("blk.9.attn_q.weight", "Q8_0", ("blk.9.attn_q.weight", "tensors of its model")),
        ("blk.0.attn_q.weight", "Q8_1", ("Q8_1", "blk.0.attn_q.weight", "spelling")),
        ("blk.0.attn_q.weight", "q8_0", ("q8_0",)),
    ],
)
def test_unknown_tensors_and_formats_are_refused(fit_of_gguf: Fit, tmp_path: Path, tensor: str, form: str, values: tuple[str, ...]) -> None:
    plan = fit_of_gguf.fitted.plan
    refused_by(PlanError, changed(plan, formats=plan.formats | {tensor: form}), tmp_path / "m.gguf", *values)


def test_a_format_that_rows_do_not_fit_is_refused(searched: Run, tmp_path: Path) -> None:
    run = bw.open_run(searched.folder)
    plan, _ = bw.plan(run, bw.parse_budget("7bpw"))
    run.store.close()
    wrong = changed(plan, formats=plan.formats | {"blk.1.attn_q.weight": "Q4_K"})
    refused_by(PlanError, wrong, tmp_path / "m.gguf", "Q4_K", "blk.1.attn_q.weight", "rows of 96")


def test_an_unknown_target_is_refused(fit_of_gguf: Fit, tmp_path: Path) -> None:
    refused_by(PlanError, changed(fit_of_gguf.fitted.plan, target="exllama"), tmp_path / "m.gguf", "exllama", "llama.cpp")


def test_a_changed_importance_matrix_is_refused(fit_of_gguf: Fit, tmp_path: Path) -> None:
    plan = fit_of_gguf.fitted.plan
    data = bytearray(Path(plan.importance.path).read_bytes())
    data[-1] ^= 1
    (tmp_path / "imatrix.gguf").write_bytes(data)
    other = plan.importance.model_copy(update={"path": str(tmp_path / "imatrix.gguf")})
    refused_by(PlanError, changed(plan, importance=other), tmp_path / "m.gguf", tmp_path / "imatrix.gguf", "changed")
    data[-1] ^= 1
    (tmp_path / "imatrix.gguf").write_bytes(data)
    bw.build(changed(plan, importance=other), tmp_path / "m.gguf")


def test_a_missing_importance_matrix_is_refused(fit_of_gguf: Fit, tmp_path: Path) -> None:
    plan = fit_of_gguf.fitted.plan
    for path in (tmp_path / "gone.gguf", tmp_path):
        other = plan.importance.model_copy(update={"path": str(path)})
        refused_by(PlanError, changed(plan, importance=other), tmp_path / "m.gguf", path)


def test_an_importance_matrix_that_is_none_is_refused(fit_of_gguf: Fit, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no matrix", encoding="utf-8")
    digest = hashlib.sha256(b"no matrix").hexdigest()
    other = fit_of_gguf.fitted.plan.importance.model_copy(update={"path": str(tmp_path / "text"), "sha256": digest})
    refused_by(ModelError, changed(fit_of_gguf.fitted.plan, importance=other), tmp_path / "m.gguf", tmp_path / "text")


def test_a_file_of_another_size_than_planned_is_not_left(fit_of_gguf: Fit, tmp_path: Path) -> None:
    plan = fit_of_gguf.fitted.plan
    wrong = changed(plan, size_bytes=plan.size_bytes + 32)
    refused_by(BrokenPromiseError, wrong, tmp_path / "m.gguf", f"{plan.size_bytes:,}", f"{plan.size_bytes + 32:,}")


def test_a_place_that_cannot_be_written_is_refused(fit_of_gguf: Fit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for out in (tmp_path / "file" / "m.gguf", tmp_path / "folder"):
        refused_by(OutputError, fit_of_gguf.fitted.plan, out, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_target_that_no_engine_loads_is_refused_before_anything_is_done(llama_tied: Path, tmp_path: Path) -> None:
    settings = small(llama_tied, target="integers", formats=("INT4_G32", "INT8_G32"))
    with pytest.raises(PlanError) as caught:
        bw.fit(settings, bw.parse_budget("6bpw"), tmp_path / "o")
    sentence(caught.value, "'integers'", "bitwright plan", "--target llama.cpp")
    assert not (tmp_path / "o").exists()
