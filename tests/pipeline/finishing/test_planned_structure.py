"""Plans with a structure: built to the byte, checked in llama.cpp, refused where they cannot be loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitwright as bw
from bitwright.compress import Source, open_source, part_order, pin_weights, read_imatrix
from bitwright.engines import engine_named
from bitwright.errors import PlanError
from bitwright.pipeline.finishing.building import source_of
from bitwright.pipeline.planning.structured_size import structured_bytes
from bitwright.spaces import Compensation, Plan, PlannedStructure, Structure, read_plan
from bitwright.written_files import digest
from tests.fits import Fit
from tests.sentences import sentence

pytestmark = pytest.mark.slow


def source_of_fit(plan: Plan) -> Source:
    return open_source(plan.model.source, engine_named(plan.target).view)


def planned(fit: Fit, structure: Structure, formats: Mapping[str, str] | None = None) -> Plan:
    """Return the plan of a fit with a structure, its parts in order, and the size that it then has."""
    plan = fit.fitted.plan.model_copy(update={"formats": {**fit.fitted.plan.formats, **(formats or {})}})
    source = source_of_fit(plan)
    order = part_order(source, read_imatrix(Path(plan.importance.path), source.tensors), ("channels", "heads"))
    recorded = PlannedStructure(head_groups=structure.head_groups, channels=structure.channels, ordered=("channels", "heads"), order=order.digest)
    size = structured_bytes(engine_named(plan.target), source, structure, plan.formats, fit.folder)
    return plan.model_copy(update={"structure": recorded, "size_bytes": size})


def test_a_plan_with_a_structure_is_built_and_checked(fit_of_folder: Fit, tmp_path: Path) -> None:
    plan = planned(fit_of_folder, Structure((3, 0), (512, 256)), {"blk.0.attn_output.weight": "Q8_0"})
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    assert read_plan(tmp_path / "plan.json") == plan
    path = bw.build(plan, tmp_path / "model.gguf")
    assert path.stat().st_size == plan.size_bytes < fit_of_folder.fitted.plan.size_bytes
    checked = bw.verify(plan, path)
    assert not checked.broken
    rows: dict[str, Any] = {name: (promised, found) for name, promised, found in checked.rows}
    assert rows["tensor types"][1] == "all as planned"


@pytest.mark.parametrize(
    ("structure", "formats", "words"),
    [
        (Structure((4, 4), (0, 512)), {}, "block 0 keeps attention alone"),
        (Structure((4, 4), (96, 512)), {"blk.0.ffn_down.weight": "Q4_K"}, "whole blocks"),
    ],
)
def test_a_structure_that_cannot_be_loaded_is_refused(
    structure: Structure, formats: dict[str, str], words: str, fit_of_folder: Fit, tmp_path: Path
) -> None:
    plan = planned(fit_of_folder, Structure((4, 4), (512, 512)), formats)
    recorded = PlannedStructure(head_groups=structure.head_groups, channels=structure.channels)
    with pytest.raises(PlanError) as refused:
        bw.build(plan.model_copy(update={"structure": recorded}), tmp_path / "model.gguf")
    sentence(refused.value, words)
    assert not [*tmp_path.iterdir()]


def test_another_order_is_refused(fit_of_folder: Fit) -> None:
    plan = planned(fit_of_folder, Structure((4, 4), (512, 512)))
    assert plan.structure is not None
    other = plan.model_copy(update={"structure": plan.structure.model_copy(update={"order": "0" * 64})})
    with pytest.raises(PlanError) as refused:
        source_of(other, source_of_fit(plan))
    sentence(refused.value, "order")


@pytest.mark.parametrize(("name", "words"), [("blk.0.ffn_down.weight", "only matrices of its model"), ("", "not there")])
def test_refitted_matrices_that_are_not_the_plans_are_refused(name: str, words: str, fit_of_folder: Fit, tmp_path: Path) -> None:
    plan = planned(fit_of_folder, Structure((4, 4), (512, 512)))
    path = tmp_path / "refitted.safetensors"
    pin_weights(path, {name or "x": np.ones((2, 3), dtype=np.float32)})
    recorded = Compensation(ridge=1.0, path=str(path), sha256=digest(path))
    if not name:
        path.unlink()
    assert plan.structure is not None
    other = plan.model_copy(update={"structure": plan.structure.model_copy(update={"compensation": recorded})})
    with pytest.raises(PlanError) as refused:
        source_of(other, source_of_fit(plan))
    sentence(refused.value, words)
