"""A plan is exported under the names of its model's modules, with a word on what its divergence is worth there."""

import json
from pathlib import Path

import pytest

from bitwright.compress import open_source
from bitwright.errors import PlanError
from bitwright.pipeline.exporting import export
from bitwright.spaces import ImportanceFile, Plan, PlannedDivergence, PlannedModel, Provenance, RequantizedCodes


def planned_model(folder: Path) -> PlannedModel:
    source = open_source(str(folder))
    return PlannedModel(source=str(folder), fingerprint=source.fingerprint, settings=dict(source.settings), n_weights=1)


def plan_of(folder: Path, target: str, formats: dict[str, str]) -> Plan:
    return Plan(
        target=target,
        target_version="1",
        model=planned_model(folder),
        formats=formats,
        size_bytes=1,
        divergence=PlannedDivergence(nats_per_token=0.125, standard_error=0.0, basis="measured", text="text", n_tokens=1),
        importance=ImportanceFile(path="imatrix.dat", sha256="0"),
        rounding=RequantizedCodes(searched="rtn", shipped="rtn"),
        found=Provenance(bitwright="0", strategy="knapsack", sensitivity="weight", calibration="text", seed=0, budget="1MB"),
    )


def test_modules_go_by_the_names_of_transformers(llama_256: Path) -> None:
    exported = export(plan_of(llama_256, "integers", {"blk.0.attn_q.weight": "INT4_G64"}), "mlx")
    entries = json.loads(exported.text)["quantization"]
    assert entries["model.layers.0.self_attn.q_proj"] == {"group_size": 64, "bits": 4, "mode": "affine"}
    assert entries["model.layers.1.mlp.down_proj"] is False
    assert "0.125 nats/token) does not carry over" in exported.note


def test_llama_quantize_is_told_the_importance_matrix(llama_256: Path) -> None:
    exported = export(plan_of(llama_256, "llama.cpp", {"blk.0.attn_q.weight": "Q4_K"}), "llama-quantize")
    assert exported.text == "^blk\\.0\\.attn_q\\.weight$=q4_k\n"
    assert "imatrix.dat" in exported.note


def test_a_plan_for_another_model_is_refused(llama_256: Path, llama_96: Path) -> None:
    plan = plan_of(llama_256, "integers", {})
    with pytest.raises(PlanError, match="fingerprint"):
        export(plan.model_copy(update={"model": plan.model.model_copy(update={"source": str(llama_96)})}), "mlx")


def test_stacked_experts_are_refused_by_name(tiny_mixtral: Path) -> None:
    with pytest.raises(PlanError, match=r"blk\.0\.ffn_up_exps\.weight"):
        export(plan_of(tiny_mixtral, "integers", {"blk.0.ffn_up_exps.weight": "INT4_ROW"}), "llm-compressor")
