"""Rules of engines: violations name tensor, rule and source before any work."""

from dataclasses import replace

import numpy as np
import pytest

from bitwright.engines import LLAMA_CPP, profile_named, target_named
from bitwright.engines.compressed_tensors.target import TRANSFORMERS, VLLM
from bitwright.errors import UserError
from bitwright.spaces import Tensor, discover, role
from tests.sentences import sentence


def block(layer: int, *, n_experts: int = 0) -> list[Tensor]:
    shapes = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}
    if n_experts:
        shapes |= {"ffn_gate_exps": (n_experts, 96, 64), "ffn_up_exps": (n_experts, 96, 64), "ffn_down_exps": (n_experts, 64, 96)}
    else:
        shapes |= {"ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
    return [Tensor(f"blk.{layer}.{kind}.weight", shape, "BF16") for kind, shape in shapes.items()]


DENSE = [Tensor("token_embd.weight", (100, 64), "BF16"), *block(0), *block(1)]
SPARSE = [Tensor("token_embd.weight", (100, 64), "BF16"), *block(0, n_experts=4), *block(1, n_experts=4)]


def plan(tensors: list[Tensor], form: str, **others: str) -> dict[str, str]:
    formats = {tensor.name: form for tensor in tensors if tensor.name != "token_embd.weight"}
    return formats | {f"{name.replace('__', '.')}.weight": other for name, other in others.items()}


def broken(target: str, tensors: list[Tensor], formats: dict[str, str]) -> list[str]:
    return [f"{breach.tensor}: {breach.rule}" for breach in target_named(target).rule_violations(tensors, formats)]


@pytest.mark.parametrize("target", ["transformers", "vllm"])
@pytest.mark.parametrize("tensors", [DENSE, SPARSE])
def test_one_format_breaks_nothing(target: str, tensors: list[Tensor]) -> None:
    assert not broken(target, tensors, plan(tensors, "W4_G32"))


def test_vllm_runs_q_k_and_v_as_one_and_transformers_does_not() -> None:
    formats = plan(DENSE, "W4_G32", blk__1__attn_k="W8_G32")
    assert broken("vllm", DENSE, formats) == ["blk.1.attn_k.weight: layers that run as one matrix are in one format"]
    assert not broken("transformers", DENSE, formats)


def test_a_layer_that_is_left_as_it_is_splits_a_tie_too() -> None:
    formats = plan(DENSE, "W4_G32")
    del formats["blk.0.ffn_up.weight"]
    assert [line.split(":")[0] for line in broken("vllm", DENSE, formats)] == ["blk.0.ffn_up.weight"]


def test_experts_of_two_blocks_may_differ_in_vllm_alone() -> None:
    other = {f"blk__1__ffn_{kind}_exps": "W8_G32" for kind in ("gate", "up", "down")}
    assert not broken("vllm", SPARSE, plan(SPARSE, "W4_G32", **other))
    assert ["garbage" in line for line in broken("transformers", SPARSE, plan(SPARSE, "W4_G32", **other))] == [True]


def test_a_format_is_told_for_each_rule_that_it_breaks() -> None:
    assert "float tensor" in broken("vllm", DENSE, plan(DENSE, "W4_G32", token_embd="W4_G32"))[0]
    assert "rows" in broken("vllm", DENSE, plan(DENSE, "W4_G128"))[0]
    assert "no such format" in broken("vllm", DENSE, plan(DENSE, "Q4_K"))[0]
    assert "zero points" in broken("vllm", SPARSE, plan(SPARSE, "W4_G32_ZP"))[0]
    assert (
        "packed"
        in broken(
            "transformers", SPARSE, plan(SPARSE, "W4_G32", **{f"blk__{i}__ffn_{k}_exps": "BF16" for i in (0, 1) for k in ("gate", "up", "down")})
        )[0]
    )


def test_a_space_offers_only_what_the_rules_allow() -> None:
    for target, tensors in ((TRANSFORMERS, SPARSE), (VLLM, SPARSE), (VLLM, DENSE), (LLAMA_CPP, SPARSE)):
        space = target.space(discover(tensors), menu=(), fixed_bytes=0, n_weights=1)
        rng = np.random.default_rng(0)
        for _ in range(20):
            choice = np.array([rng.choice(np.flatnonzero(row)) for row in space.offered])
            assert not target.rule_violations(tensors, space.names(choice))


def test_every_rule_names_its_source() -> None:
    for target in (TRANSFORMERS, VLLM):
        assert all(rule.source and rule.sentence for rule in (*target.rules, *target.fused))


def test_keeping_a_part_of_what_runs_as_one_is_refused() -> None:
    units = discover(DENSE)
    kept = tuple(unit for unit in units if role(unit.tensors[0].name) == "attn_v")
    with pytest.raises(UserError) as caught:
        VLLM.require_keepable(units, kept)
    assert sentence(caught.value, "blk.0.attn_q")
    VLLM.require_keepable(units, tuple(unit for unit in units if unit.kind in ("attn_q", "attn_k", "attn_v")))
    TRANSFORMERS.require_keepable(units, kept)


def test_keeping_experts_as_floats_is_refused_where_they_do_not_load() -> None:
    units = discover(SPARSE)
    with pytest.raises(UserError) as caught:
        TRANSFORMERS.require_keepable(units, tuple(unit for unit in units if unit.kind.endswith("_exps")))
    assert sentence(caught.value, "transformers")


@pytest.mark.parametrize(("name", "version"), [("sglang", ""), ("vllm", "0.1")])
def test_an_engine_without_a_profile_is_refused(name: str, version: str) -> None:
    with pytest.raises(UserError) as caught:
        profile_named(name, version)
    assert sentence(caught.value, name)


def test_a_profile_is_found() -> None:
    assert profile_named("vllm", "") is profile_named("vllm", VLLM.version) is VLLM


def test_what_is_stored_in_no_format_of_the_engine_is_kept_as_floats() -> None:
    """Experts of a GGUF file would be stored as floats beside packed layers."""
    stored = [Tensor(tensor.name, tensor.shape, "Q4_1") for tensor in SPARSE]
    units = discover(stored)
    with pytest.raises(UserError) as caught:
        TRANSFORMERS.require_keepable(units, tuple(unit for unit in units if unit.kind.endswith("_exps")))
    assert sentence(caught.value, "blk.0.ffn_gate_exps")
    formats = {name: form for name, form in plan(stored, "W4_G32").items() if not name.endswith("_exps.weight")}
    assert "packed" in broken("transformers", stored, formats)[0]


@pytest.mark.parametrize("target", ["transformers", "vllm"])
def test_packed_integers_are_told_for_a_layer_that_is_initialised(target: str) -> None:
    tensors = [replace(tensor, initialised=tensor.name == "blk.0.attn_output.weight") for tensor in DENSE]
    assert broken(target, tensors, plan(tensors, "FP8_ROW")) == []
    (line,) = broken(target, tensors, plan(tensors, "W8_G32"))
    assert line.startswith("blk.0.attn_output.weight: layers that are initialised")
