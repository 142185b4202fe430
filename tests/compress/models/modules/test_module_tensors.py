"""Names, shapes and roles of a module's tensors, for families of every kind of stack."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig

from bitwright.compress.models.modules.module_tensors import module_tensors
from bitwright.compress.models.modules.structure import kinds_of
from bitwright.compress.models.opening import open_skeleton
from bitwright.spaces import KEPT, Tensor, discover, expert_of, into_experts, part_of

SHAPE: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SHAPE | {"num_key_value_heads": 1},
    "phi3": SHAPE | {"num_key_value_heads": 1, "pad_token_id": 0},
    "gpt2": {"vocab_size": 64, "n_embd": 32, "n_layer": 1, "n_head": 2},
    "falcon": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    "mixtral": SHAPE | {"num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": SHAPE | {"num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": SHAPE | {"num_key_value_heads": 1, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
}


def tensors_of(family: str, *, apart: bool) -> dict[str, Tensor]:
    module = open_skeleton(AutoConfig.for_model(family, **FAMILIES[family]))
    return {tensor.name: tensor for tensor in module_tensors(module, apart=apart)[0]}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_in_one_tensor(family: str) -> None:
    module = open_skeleton(AutoConfig.for_model(family, **FAMILIES[family]))
    tensors, pieces = module_tensors(module, apart=False)
    assert sum(tensor.n_weights for tensor in tensors) == sum(weight.numel() for weight in module.parameters())
    for tensor in tensors:
        weights = dict(module.named_parameters())
        rows = [piece.to_engine(weights[piece.parameter]) for piece in pieces[tensor.name]]
        assert sum(part.numel() for part in rows) == tensor.n_weights
        assert len(tensor.shape) == 1 or torch.cat(rows).shape == (tensor.n_weights // tensor.shape[-1], tensor.shape[-1])


def test_a_dense_model_has_the_roles_of_the_field() -> None:
    tensors = tensors_of("llama", apart=True)
    kinds = {name.removeprefix("model.layers.0."): tensor.kind for name, tensor in tensors.items() if tensor.kind != KEPT}
    assert kinds == {
        "model.embed_tokens.weight": "token_embd",
        "self_attn.q_proj.weight": "attn_q",
        "self_attn.k_proj.weight": "attn_k",
        "self_attn.v_proj.weight": "attn_v",
        "self_attn.o_proj.weight": "attn_output",
        "mlp.gate_proj.weight": "ffn_gate",
        "mlp.up_proj.weight": "ffn_up",
        "mlp.down_proj.weight": "ffn_down",
        "lm_head.weight": "output",
    }


def test_what_the_field_has_no_word_for_is_called_by_its_path() -> None:
    tensors = tensors_of("phi3", apart=True)
    assert tensors["model.layers.0.self_attn.qkv_proj.weight"].kind == "self_attn.qkv_proj"
    assert tensors["model.layers.0.mlp.gate_up_proj.weight"].kind == "mlp.gate_up_proj"


def test_experts_that_are_saved_one_by_one_are_gate_and_up() -> None:
    for apart in (True, False):
        tensors = tensors_of("mixtral", apart=apart)
        stem = "model.layers.0.mlp.experts"
        assert {leaf: tensors[f"{stem}.{leaf}"].kind for leaf in ("gate_proj", "up_proj", "down_proj")} == {
            "gate_proj": "ffn_gate_exps",
            "up_proj": "ffn_up_exps",
            "down_proj": "ffn_down_exps",
        }
        assert tensors[f"{stem}.gate_proj"].shape == (4, 48, 32)
        assert tensors["model.layers.0.mlp.gate.weight"].kind == "ffn_gate_inp"
        assert "model.layers.0.mlp.gate" not in {unit.name for unit in discover(tensors.values())}


@pytest.mark.parametrize(("family", "stack", "shape"), [("granitemoe", "block_sparse_moe", (4, 96, 32)), ("gpt_oss", "mlp", (4, 96, 32))])
def test_a_stack_that_is_saved_whole_is_one_and_no_loader_of_linear_layers_unpacks_it(family: str, stack: str, shape: tuple[int, ...]) -> None:
    name = f"model.layers.0.{stack}.experts.gate_up_proj"
    assert tensors_of(family, apart=False)[name].shape == shape
    assert tensors_of(family, apart=False)[name].kind.endswith("_exps")
    assert tensors_of(family, apart=True)[name].kind == KEPT


def test_matrices_from_the_right_are_transposed() -> None:
    name = "transformer.h.0.attn.c_attn.weight"
    assert tensors_of("gpt2", apart=False)[name].shape == (96, 32)
    assert tensors_of("gpt2", apart=True)[name].kind == KEPT


def test_layers_that_are_initialised_while_they_load_are_marked() -> None:
    name = "transformer.h.0.mlp.dense_h_to_4h.weight"
    assert {tensor.kind for tensor in tensors_of("falcon", apart=True).values() if tensor.initialised} >= {"mlp.dense_h_to_4h"}
    assert not tensors_of("falcon", apart=False)[name].initialised
    assert not any(tensor.initialised for tensor in tensors_of("llama", apart=True).values())


def test_names_of_experts_are_parsed_back() -> None:
    parts = into_experts(tensors_of("mixtral", apart=False)["model.layers.0.mlp.experts.up_proj"])
    assert [part.tensor.name for part in parts] == [f"model.layers.0.mlp.experts.{expert}.up_proj.weight" for expert in range(4)]
    assert [expert_of(part.tensor.name) for part in parts] == [(0, expert) for expert in range(4)]
    assert part_of("model.layers.0.mlp.part2.up_proj.weight") == 2


def test_only_the_language_model_of_a_wrapper_can_be_quantized() -> None:
    text = SHAPE | {"num_key_value_heads": 1, "model_type": "llama"}
    vision = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("llava", text_config=text, vision_config=vision)
    kinds = kinds_of(open_skeleton(config))
    assert any("vision" in name for name in kinds)
    assert {kind for name, kind in kinds.items() if "vision" in name or "projector" in name} == {KEPT}
    assert kinds["model.language_model.layers.0.self_attn.q_proj.weight"] == "attn_q"
