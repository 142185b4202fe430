"""Runs whose packed tensors have hardly any room, and that price formats by a sample of rows: the same plan and file, and a small folder."""

from pathlib import Path
from typing import Any

import pytest

import bitwright as bw
from bitwright.pipeline import Fitted
from tests.runs import BRIEF, plan_without_paths, small

pytestmark = pytest.mark.slow


def fitted(model: Path, folder: Path, **settings: Any) -> Fitted:
    """Fit of a model, priced by rows; packed tensors that no plan needs are gone behind it."""
    found = bw.fit(small(model, price_rows="16", **settings), bw.parse_budget("9.5bpw"), folder, by=BRIEF)
    kept = {path.name for path in (folder / "levels").rglob("*") if path.is_file()}
    assert kept <= {f"{tensor}.{form}" for tensor, form in found.plan.formats.items()}
    return found


@pytest.fixture(scope="module")
def free(llama_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A model in memory, and room for its packed tensors."""
    return fitted(llama_tied, tmp_path_factory.mktemp("free") / "run")


def test_a_bound_on_packed_tensors_changes_neither_plan_nor_file(free: Fitted, llama_tied: Path, tmp_path: Path) -> None:
    bound = fitted(llama_tied, tmp_path, disk_limit_bytes=1)
    assert plan_without_paths(free.report.with_name("plan.json")) == plan_without_paths(tmp_path / "plan.json")
    assert free.model.read_bytes() == bound.model.read_bytes()


def test_a_streamed_model_is_priced_by_the_same_rows(free: Fitted, llama_tied: Path, tmp_path: Path) -> None:
    streamed = fitted(llama_tied, tmp_path, stream=True).plan
    assert free.plan.formats == streamed.formats
    assert free.plan.divergence.nats_per_token == pytest.approx(streamed.divergence.nats_per_token, rel=1e-3)
