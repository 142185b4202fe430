"""Units found in tiny models."""

from pathlib import Path

import pytest

from bitwright.compress import open_source
from bitwright.spaces import Tensor, Unit, discover, expert_of, part_of, role

ATTENTION = ["attn_q", "attn_k", "attn_v", "attn_output"]
DENSE = [*ATTENTION, "ffn_gate", "ffn_up", "ffn_down"]
SPARSE = [*ATTENTION, "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]


def discovered(folder: Path) -> tuple[Unit, ...]:
    return discover(open_source(str(folder)).tensors)


@pytest.mark.parametrize(("model", "kinds"), [("llama_256", DENSE), ("llama_gqa", DENSE), ("tiny_mixtral", SPARSE)])
def test_every_matrix_of_a_model_is_a_unit(model: str, kinds: list[str], request: pytest.FixtureRequest) -> None:
    units = discovered(request.getfixturevalue(model))
    expected = [("token_embd", -1, "token_embd"), ("output", -1, "output")]
    expected += [(f"blk.{layer}.{kind}", layer, kind) for layer in range(2) for kind in kinds]
    assert [(unit.name, unit.layer, unit.kind) for unit in units] == expected


def test_a_tied_embedding_is_one_unit(llama_tied: Path) -> None:
    outside = [unit.name for unit in discovered(llama_tied) if unit.layer < 0]
    assert outside == ["token_embd"]


def test_a_unit_holds_the_whole_tensor(tiny_mixtral: Path) -> None:
    units = {unit.name: unit for unit in discovered(tiny_mixtral)}
    experts = units["blk.1.ffn_down_exps"]
    assert [tensor.shape for tensor in experts.tensors] == [(4, 64, 96)]
    assert experts.n_weights == 4 * 64 * 96


def test_a_unit_may_hold_several_tensors() -> None:
    tie = Unit("qk", 0, "attn", (Tensor("q.weight", (2, 32), "F16"), Tensor("k.weight", (1, 32), "F16")))
    assert tie.n_weights == 96


@pytest.mark.parametrize(
    "name",
    [
        "blk.0.ffn_gate_inp.weight",
        "blk.0.ffn_gate_inp_shexp.weight",
        "blk.0.attn_norm.weight",
        "blk.0.attn_q_norm.weight",
        "blk.0.ssm_conv1d.weight",
        "blk.0.shortconv.conv.weight",
        "blk.0.time_mix_w1.weight",
        "output_norm.weight",
        "position_embd.weight",
        "token_types.weight",
        "rope_freqs.weight",
        "blk.0.attn_q.bias",
        "blk.0.exp_probs_b",
        "something.else.weight",
    ],
)
def test_what_llama_cpp_never_quantizes_stays(name: str) -> None:
    shape = (64,) if "rope" in name else (64, 64)
    assert discover([Tensor(name, shape, "F32")]) == ()


def test_a_vector_stays() -> None:
    assert discover([Tensor("blk.0.attn_q.weight", (64,), "F32")]) == ()
    assert len(discover([Tensor("blk.0.attn_q.weight", (1, 64), "F32")])) == 1


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("blk.3.shortconv.in_proj.weight", ("shortconv.in_proj", 3, -1, -1)),
        ("blk.3.ffn_up_exps.7.part.1.weight", ("ffn_up_exps", 3, 7, 1)),
        ("blk.3.ffn_up.part.1.weight", ("ffn_up", 3, -1, 1)),
    ],
)
def test_roles_may_have_a_dot_inside(name: str, read: tuple[str, int, int, int]) -> None:
    assert (role(name), *expert_of(name), part_of(name)) == read
