"""Places of the engine's tensors in a module, and the modules that are refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from bitwright.compress import ARCHITECTURES, ParameterSlice, indices, weights_of
from bitwright.compress.models.architectures import MODEL_TYPES, architecture_of, bind, engine_shape, lay_out
from bitwright.compress.models.tensor_layout import interleaved
from bitwright.errors import ModelError
from tests.compress import tiny_models as tiny


def tiny_module(family):
    model_type, settings, _ = tiny.FAMILIES[family]
    return tiny.module(model_type, settings, dtype=torch.float32), MODEL_TYPES[model_type]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_weight_is_bound_exactly_once(family):
    module, architecture = tiny_module(family)
    weights = weights_of(module)
    seen = {name: torch.zeros(weight.shape, dtype=torch.int64) for name, weight in weights.items()}
    for pieces in lay_out(module, architecture).values():
        for piece in pieces:
            piece.matrix(seen[piece.parameter])[torch.from_numpy(piece.order())] += 1
    assert all((count == 1).all() for count in seen.values())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_pieces_round_trip(family):
    module, architecture = tiny_module(family)
    for pieces in bind(module, architecture).values():
        for piece in pieces:
            weight = module.get_parameter(piece.parameter).detach()
            before, rows = weight.clone(), piece.to_engine(weight)
            piece.matrix(weight)[piece.start : piece.stop] = 0
            piece.from_engine(weight, rows)
            assert torch.equal(weight, before)


@given(heads=st.integers(1, 6), pairs=st.integers(1, 8), start=st.integers(0, 5))
def test_rotary_order_brings_the_halves_of_a_pair_together(heads, pairs, start):
    order = indices(interleaved(start, start + heads * pairs * 2, heads)) - start
    assert sorted(order) == list(range(heads * pairs * 2))
    first, second = order.reshape(-1, 2).T
    assert np.array_equal(second - first, np.full(heads * pairs, pairs))


def test_bound_names_and_shapes_of_a_dense_model():
    module, architecture = tiny_module("llama-untied")
    weights = dict(module.named_parameters())
    shapes = {name: engine_shape(pieces, weights[pieces[0].parameter]) for name, pieces in bind(module, architecture).items()}
    block = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}
    block |= {"ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
    expected = {f"blk.{layer}.{kind}.weight": shape for layer in range(2) for kind, shape in block.items()}
    assert shapes == expected | {"token_embd.weight": (384, 64), "output.weight": (384, 64)}


def test_only_q_and_k_of_llama_are_reordered():
    module, architecture = tiny_module("llama-biases")
    reordered = {name: pieces[0].rows for name, pieces in lay_out(module, architecture).items() if not pieces[0].is_plain}
    kinds = {"attn_q.weight": 4, "attn_q.bias": 4, "attn_k.weight": 2, "attn_k.bias": 2}
    assert reordered == {f"blk.{layer}.{kind}": interleaved(0, 32 * heads, heads) for layer in range(2) for kind, heads in kinds.items()}


def test_stacked_experts_are_one_piece_each():
    module, architecture = tiny_module("mixtral")
    found = bind(module, architecture)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    assert found["blk.1.ffn_gate_exps.weight"] == tuple(ParameterSlice(name, expert, range(96)) for expert in range(4))
    assert found["blk.1.ffn_up_exps.weight"] == tuple(ParameterSlice(name, expert, range(96, 192)) for expert in range(4))
    assert found["blk.1.ffn_down_exps.weight"] == tuple(
        ParameterSlice("model.layers.1.mlp.experts.down_proj", expert, range(64)) for expert in range(4)
    )
    down = dict(module.named_parameters())["model.layers.1.mlp.experts.down_proj"]
    assert engine_shape(found["blk.1.ffn_down_exps.weight"], down) == (4, 64, 96)


def test_the_gate_of_a_shared_expert_is_a_vector():
    module, architecture = tiny_module("qwen2-moe")
    pieces = lay_out(module, architecture)["blk.0.ffn_gate_inp_shexp.weight"]
    assert engine_shape(pieces, module.get_parameter(pieces[0].parameter)) == (64,)
    assert "blk.0.ffn_gate_inp_shexp.weight" not in bind(module, architecture)


def test_every_model_type_has_a_row():
    assert set(MODEL_TYPES.values()) == set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("model_type", "settings", "said"),
    [
        ("gpt2", {}, "'gpt2' is not: choose one of llama, mistral"),
        ("llama", {"hidden_act": "relu"}, "hidden_act = silu only; this model has relu"),
        ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob = True only"),
        ("qwen3_moe", {"norm_topk_prob": True, "mlp_only_layers": [0]}, r"mlp_only_layers = \[\] only"),
        ("gemma2", {"head_dim": 32, "query_pre_attn_scalar": 48}, "query_pre_attn_scalar = 32 only; this model has 48"),
    ],
)
def test_what_llama_cpp_would_compute_differently_is_refused(model_type, settings, said):
    with pytest.raises(ModelError, match=said):
        architecture_of(AutoConfig.for_model(model_type, **settings))


def test_the_largest_gemma_scales_attention_by_its_width():
    settings = {"hidden_size": 64, "num_attention_heads": 4, "head_dim": 32, "num_hidden_layers": 46, "query_pre_attn_scalar": 16}
    assert architecture_of(AutoConfig.for_model("gemma2", **settings)).name == "gemma2"


def test_an_unknown_architecture_is_refused():
    module, _ = tiny_module("llama-tied")
    with pytest.raises(ModelError, match="'falcon' is not: choose a model of one of llama, qwen2"):
        bind(module, "falcon")


def test_a_parameter_without_a_counterpart_is_refused():
    module, architecture = tiny_module("llama-tied")
    module.model.register_parameter("adapter", torch.nn.Parameter(torch.zeros(2, 2)))
    with pytest.raises(ModelError, match=r"'model\.adapter' has none"):
        bind(module, architecture)
