"""Plans of other tools and for them: an imported promise was measured here, an exported plan has a word on what its divergence is worth there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bitwright as bw
from bitwright.compress import open_headers, open_source
from bitwright.engines import engine_named
from bitwright.errors import PlanError, TextError, UserError
from bitwright.pipeline.exchange import export, import_plan
from bitwright.spaces import ImportanceFile, Kept, Plan, PlannedDivergence, PlannedModel, Provenance, RequantizedCodes
from tests.runs import small
from tests.sentences import sentence

BY = bw.pipeline.Search(bw.pipeline.method_named("auto"), evaluations=0)


@pytest.fixture(scope="module")
def settings(llama_256: Path) -> bw.Settings:
    return small(llama_256, target="transformers", formats=("W8_G64", "W4_G64", "W3_G32"), sensitivity="importance", skip=("token_embd*", "output*"))


@pytest.fixture(scope="module")
def plan(settings: bw.Settings, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    run = bw.pipeline.search(settings, tmp_path_factory.mktemp("run"), n_points=2, by=BY)
    return bw.plan(run, bw.parse_budget("9bpw"))[0]


def recipe(tmp_path: Path, weights: dict[str, Any], *targets: str) -> Path:
    described = {"config_groups": {"group_0": {"targets": targets, "weights": {"num_bits": 4, "symmetric": True, "strategy": "channel"} | weights}}}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"quant_stage": {"quant_modifiers": {"QuantizationModifier": described}}}), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["autoround", "gptqmodel", "llm-compressor", "modelopt"])
def test_a_plan_comes_back_from_another_tool_s_file(plan: Plan, settings: bw.Settings, dialect: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(export(plan, dialect).text, encoding="utf-8")
    found = import_plan(replace(settings, formats=(), skip=()), tmp_path / "file", dialect, tmp_path / "run")
    assert len(set(plan.formats.values())) > 1
    assert (found.formats, found.size_bytes, found.model) == (plan.formats, plan.size_bytes, plan.model)
    assert found.divergence == plan.divergence
    assert (found.found.strategy, found.found.sensitivity) == (f"imported from {dialect}", "none")
    again = import_plan(replace(settings, formats=(), skip=()), tmp_path / "file", dialect, tmp_path / "run")
    assert again == found


@pytest.mark.slow
def test_llama_quantize_s_lines_become_a_plan_for_llama_cpp(llama_256: Path, tmp_path: Path) -> None:
    (tmp_path / "types.txt").write_text("attn_q=q4_k\nffn_.*=q5_0\n", encoding="utf-8")
    plan = import_plan(small(llama_256), tmp_path / "types.txt", "llama-quantize", tmp_path / "run")
    assert plan.formats == {
        f"blk.{layer}.{kind}.weight": form
        for layer in range(2)
        for kind, form in {"attn_q": "Q4_K", "ffn_gate": "Q5_0", "ffn_up": "Q5_0", "ffn_down": "Q5_0"}.items()
    }
    bw.build(plan, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").stat().st_size == plan.size_bytes


@pytest.mark.slow
def test_llama_quantize_s_lines_name_stacks_of_experts_too(tiny_mixtral: Path, tmp_path: Path) -> None:
    (tmp_path / "types.txt").write_text("FFN_down_exps=q8_0 attn_q=q5_0", encoding="utf-8")
    plan = import_plan(small(tiny_mixtral), tmp_path / "types.txt", "llama-quantize", tmp_path / "run")
    assert plan.formats == {
        f"blk.{layer}.{kind}.weight": form for layer in range(2) for kind, form in {"attn_q": "Q5_0", "ffn_down_exps": "Q8_0"}.items()
    }


@pytest.mark.slow
def test_levels_of_evopress_become_a_plan_that_is_built(llama_256: Path, tmp_path: Path) -> None:
    modules = [tensor.name.removesuffix(".weight") for tensor in open_headers(str(llama_256), engine_named("native").view).least.tensors]
    wanted = [name for name in modules if name.endswith("_proj")]
    (tmp_path / "levels.txt").write_text("".join(f"{name}: {(-1) ** i}\n" for i, name in enumerate(wanted)), encoding="utf-8")
    plan = import_plan(small(llama_256, target="native", formats=()), tmp_path / "levels.txt", "evopress-50", tmp_path / "run")
    assert set(plan.formats) == {f"{name}.weight" for name in wanted}
    assert {name.rpartition("_")[0] for name in plan.formats.values()} == {"BF16"}
    assert len(set(plan.formats.values())) > 2
    bw.build(plan, tmp_path / "model")
    assert sum(file.stat().st_size for file in (tmp_path / "model").iterdir()) == plan.size_bytes
    assert export(plan, "evopress-50").text == (tmp_path / "levels.txt").read_text(encoding="utf-8")


def test_a_rule_without_a_tensor_is_refused(llama_256: Path, tmp_path: Path) -> None:
    (tmp_path / "types.txt").write_text("attn_q=q4_k\nffn_dwn=q5_0\n", encoding="utf-8")
    with pytest.raises(PlanError) as caught:
        import_plan(small(llama_256), tmp_path / "types.txt", "llama-quantize", tmp_path / "run")
    sentence(caught.value, "'ffn_dwn'")


@pytest.mark.slow
def test_gptq_rounds_what_is_imported_by_the_moments_of_the_original(settings: bw.Settings, tmp_path: Path) -> None:
    file = recipe(tmp_path, {}, "re:.*(q|up)_proj")
    nats = {}
    for codec, ship in (("rtn", ""), ("gptq", ""), ("rtn", "gptq")):
        asked = replace(settings, formats=(), skip=(), codec=codec, ship_codec=ship)
        plan = import_plan(asked, file, "llm-compressor", tmp_path / f"{codec}-{ship}")
        assert isinstance(plan.rounding, Kept) == ("gptq" in (codec, ship))
        nats[plan.rounding.shipped] = plan.divergence.nats_per_token
    assert len(set(nats.values())) == 3


@pytest.mark.parametrize(
    ("weights", "targets", "values"),
    [
        ({"symmetric": False}, ("lm_head",), ("asymmetric", "symmetric integers", "another target")),
        ({"strategy": "group", "group_size": 48}, ("lm_head",), ("group_size=48", "group_0")),
        ({"strategy": "group", "group_size": 32}, ("re:nothing",), ("re:nothing",)),
    ],
)
def test_what_the_target_cannot_hold_is_refused(
    settings: bw.Settings, tmp_path: Path, weights: dict[str, Any], targets: tuple[str, ...], values: tuple[str, ...]
) -> None:
    with pytest.raises(PlanError) as caught:
        import_plan(settings, recipe(tmp_path, weights, *targets), "llm-compressor", tmp_path / "run")
    sentence(caught.value, *values)


def test_groups_that_do_not_divide_a_row_are_refused(llama_96: Path, settings: bw.Settings, tmp_path: Path) -> None:
    file = recipe(tmp_path, {"strategy": "group", "group_size": 64}, "re:.*q_proj")
    with pytest.raises(PlanError) as caught:
        import_plan(replace(settings, model=str(llama_96), formats=()), file, "llm-compressor", tmp_path / "run")
    sentence(caught.value, "W4_G64", "model.layers.0.self_attn.q_proj.weight")


def test_what_an_engine_wants_in_one_format_must_be(settings: bw.Settings, tmp_path: Path) -> None:
    groups = {
        f"group_{i}": {"targets": [f"re:.*{part}_proj"], "weights": {"num_bits": bits, "symmetric": True, "strategy": "group", "group_size": 128}}
        for i, (part, bits) in enumerate({"q": 4, "k": 8, "v": 4}.items())
    }
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"quant_stage": {"quant_modifiers": {"QuantizationModifier": {"config_groups": groups}}}}), encoding="utf-8")
    with pytest.raises(PlanError) as caught:
        import_plan(replace(settings, target="vllm", formats=(), skip=()), file, "llm-compressor", tmp_path / "run")
    sentence(caught.value, "in one format", "W4_G128", "W8_G128")


def test_files_and_words_that_cannot_be_are_refused(settings: bw.Settings, tmp_path: Path) -> None:
    for file in (tmp_path / "gone", tmp_path):
        with pytest.raises(TextError) as caught:
            import_plan(settings, file, "mlx", tmp_path / "run")
        sentence(caught.value, file)
    with pytest.raises(UserError) as unknown:
        import_plan(settings, tmp_path / "gone", "klingon", tmp_path / "run")
    sentence(unknown.value, "'klingon'")
    for target, dialect in (("llama.cpp", "mlx"), ("transformers", "llama-quantize")):
        with pytest.raises(PlanError) as other:
            import_plan(replace(settings, target=target, formats=(), skip=()), tmp_path / "gone", dialect, tmp_path / "run")
        sentence(other.value, dialect, target, "--target")
    (tmp_path / "nothing").write_text('{"quant_cfg": [{"quantizer_name": "*", "enable": false}]}', encoding="utf-8")
    with pytest.raises(PlanError) as nothing:
        import_plan(settings, tmp_path / "nothing", "modelopt", tmp_path / "run")
    sentence(nothing.value, "must quantize a tensor", tmp_path / "nothing")


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
