"""Verdicts of engines on a plan, and the cost of their rules on a run."""

from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.engines import LLAMA_CPP
from bitwright.engines.compressed_tensors.target import TRANSFORMERS, VLLM
from bitwright.errors import UserError
from bitwright.pipeline.pricing.rule_prices import preflight, price_rules
from bitwright.pipeline.verbs import Fitted
from bitwright.spaces import read_plan
from tests.runs import BRIEF
from tests.sentences import sentence

pytestmark = pytest.mark.slow

_EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def dense(llama_gqa: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, Path]:
    out = tmp_path_factory.mktemp("dense")
    settings = bw.Settings(str(llama_gqa), "transformers", ("W2_ROW", "W4_ROW", "W8_ROW"), n_calibration=4, n_held_out=4, sequence_length=16)
    return bw.fit(settings, bw.parse_budget("9bpw"), out, by=BRIEF), out


def test_a_plan_for_transformers_is_built_and_checked_there(dense: tuple[Fitted, Path]) -> None:
    found, out = dense
    assert not found.check.broken
    assert found.check.engine == "transformers"
    assert found.plan.target_version == TRANSFORMERS.version
    assert sum(file.stat().st_size for file in (out / "model").iterdir()) == found.plan.size_bytes
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in (out / "model").iterdir()}


def test_another_divergence_breaks_the_promise(dense: tuple[Fitted, Path], tmp_path: Path) -> None:
    found, _ = dense
    other = dict.fromkeys(found.plan.formats, "W2_ROW") | {name: form for name, form in found.plan.formats.items() if form in ("BF16", "F16", "F32")}
    changed = found.plan.model_copy(update={"formats": other})
    assert any("another format" in line for line in bw.verify(changed, found.model).broken)


def test_a_plan_is_built_again_to_the_same_bytes(dense: tuple[Fitted, Path], tmp_path: Path) -> None:
    found, _ = dense
    bw.build(found.plan, tmp_path / "again")
    for file in found.model.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_preflight_names_what_breaks(dense: tuple[Fitted, Path]) -> None:
    _, out = dense
    plan = read_plan(out / "plan.json")
    assert not preflight(plan, TRANSFORMERS)
    assert {breach.rule for breach in preflight(plan, LLAMA_CPP)} == {"llama.cpp has no such format"}
    q, k = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight"
    split = plan.model_copy(update={"formats": plan.formats | {q: "W2_ROW", k: "W8_ROW"}})
    assert k in {breach.tensor for breach in preflight(split, VLLM)}


def test_a_plan_that_breaks_its_own_targets_rules_is_not_built(dense: tuple[Fitted, Path], tmp_path: Path) -> None:
    plan = dense[0].plan
    with pytest.raises(UserError) as caught:
        bw.build(plan.model_copy(update={"formats": plan.formats | {"token_embd.weight": "W4_ROW"}}), tmp_path / "model")
    assert sentence(caught.value, "token_embd.weight")
    assert not list(tmp_path.iterdir())


def test_a_rule_never_makes_the_front_better(dense: tuple[Fitted, Path]) -> None:
    prices = price_rules(bw.open_run(dense[1]), VLLM)
    nats = {row.rule: np.array(row.nats) for row in prices.rows}
    assert set(nats) == {"none", "initialised layers", "embedding", "symmetric experts", "inputs of experts", "projections", "experts", "all"}
    assert all((nats["none"] <= each + 1e-12).all() for each in nats.values())
    assert all((each <= nats["all"] + 1e-12).all() for each in nats.values())
    assert (nats["projections"] > nats["none"]).any()
    assert list(prices.budgets_bytes) == sorted(prices.budgets_bytes)


def test_an_engine_without_rules_has_no_prices(dense: tuple[Fitted, Path]) -> None:
    with pytest.raises(UserError) as caught:
        price_rules(bw.open_run(dense[1]), LLAMA_CPP)
    assert sentence(caught.value, "llama.cpp")


@pytest.mark.parametrize("target", ["transformers", "vllm"])
def test_what_an_engine_does_to_inputs_is_measured(target: str, llama_gqa: Path, tmp_path: Path) -> None:
    menu = ("W8A8_ROW", "FP8_ROW", "FP8A8_ROW", "W4_ROW")
    settings = bw.Settings(str(llama_gqa), target, menu, n_calibration=4, n_held_out=4, sequence_length=16, sensitivity="importance")
    found = bw.fit(settings, bw.parse_budget("13bpw"), tmp_path, by=BRIEF)
    rounding = dict.fromkeys(found.plan.formats, "W8A8_ROW") | {_EMBEDDING: found.plan.formats[_EMBEDDING]}
    run = bw.open_run(tmp_path)
    space = run.everything
    assert space.total_bytes(space.choice(found.plan.formats)) == found.plan.size_bytes
    assert all(space.offered[u, [form.name for form in space.formats].index("W8A8_ROW")] for u in range(1, len(space.units)))
    plan = found.plan.model_copy(update={"formats": rounding, "size_bytes": space.total_bytes(space.choice(rounding))})
    bw.build(plan, tmp_path / "rounding")
    checked = bw.verify(plan, tmp_path / "rounding")
    assert not checked.broken
    alone = plan.model_copy(update={"formats": {name: "W8_ROW" if form == "W8A8_ROW" else form for name, form in rounding.items()}})
    assert any("another format" in line for line in bw.verify(alone, tmp_path / "rounding").broken)


@pytest.mark.parametrize("target", ["transformers", "vllm"])
def test_a_mixture_is_built_and_checked(target: str, tiny_mixtral: Path, tmp_path: Path) -> None:
    settings = bw.Settings(str(tiny_mixtral), target, ("W4_ROW", "W8_ROW"), n_calibration=4, n_held_out=4, sequence_length=16)
    found = bw.fit(settings, bw.parse_budget("9bpw"), tmp_path, by=BRIEF)
    assert not found.check.broken
    assert not preflight(found.plan, VLLM)
