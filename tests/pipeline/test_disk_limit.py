"""Runs whose packed tensors have hardly any room, and that price formats by a sample of rows: the same plan and file, and a small folder."""

from pathlib import Path

import pytest

import bitwright as bw
from bitwright.methods import AUTO
from bitwright.pipeline.searching.search import Search
from tests.runs import plan_without_paths, small


@pytest.mark.slow
def test_a_bound_on_packed_tensors_changes_neither_plan_nor_file(llama_tied: Path, tmp_path: Path) -> None:
    search = Search(AUTO, evaluations=4)
    for name, n_bytes in (("free", 0), ("bound", 1)):
        settings = small(llama_tied, price_rows="16", disk_limit_bytes=n_bytes)
        fitted = bw.fit(settings, bw.parse_budget("9.5bpw"), tmp_path / name, by=search)
        kept = {path.name for path in (tmp_path / name / "levels").rglob("*") if path.is_file()}
        assert kept <= {f"{tensor}.{form}" for tensor, form in fitted.plan.formats.items()}
    assert plan_without_paths(tmp_path / "free" / "plan.json") == plan_without_paths(tmp_path / "bound" / "plan.json")
    assert (tmp_path / "free" / "model.gguf").read_bytes() == (tmp_path / "bound" / "model.gguf").read_bytes()


@pytest.mark.slow
def test_a_streamed_model_is_priced_by_the_same_rows(llama_tied: Path, tmp_path: Path) -> None:
    search, plans = Search(AUTO, evaluations=0), []
    for stream in (False, True):
        settings = small(llama_tied, price_rows="16", stream=stream)
        plans.append(bw.fit(settings, bw.parse_budget("9.5bpw"), tmp_path / str(stream), by=search).plan)
    assert plans[0].formats == plans[1].formats
    assert plans[0].divergence.nats_per_token == pytest.approx(plans[1].divergence.nats_per_token, rel=1e-3)
