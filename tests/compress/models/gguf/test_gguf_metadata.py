"""Hyperparameters under the keys and types that llama.cpp reads."""

import pytest
from gguf import GGUFValueType
from transformers import AutoConfig

from bitwright.compress.models.architectures import architecture_of
from bitwright.compress.models.gguf.gguf_metadata import hyperparameters, require_alike
from bitwright.errors import ModelError


def entries(model_type, **settings):
    config = AutoConfig.for_model(model_type, **settings)
    found = hyperparameters(config, architecture_of(config), name="a model", stored="BF16", n_tokens=512)
    assert len({entry.key for entry in found}) == len(found)
    return {entry.key: entry for entry in found}


def values(model_type, **settings):
    return {key: entry.value for key, entry in entries(model_type, **settings).items()}


def test_llama():
    found = values("llama", hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3, rms_norm_eps=1e-5)
    assert found == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "a model",
        "general.file_type": 32,
        "general.quantization_version": 2,
        "llama.vocab_size": 512,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.rope.dimension_count": 16,
        "llama.block_count": 3,
        "llama.context_length": 2048,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 11008,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
    }


def test_types_are_those_that_llama_cpp_asks_for():
    found = entries("llama")
    assert found["llama.block_count"].type == GGUFValueType.UINT32
    assert found["llama.attention.layer_norm_rms_epsilon"].type == GGUFValueType.FLOAT32
    assert found["general.file_type"].type == found["general.quantization_version"].type == GGUFValueType.UINT32
    assert found["general.name"].type == found["general.name"].item == GGUFValueType.STRING


@pytest.mark.parametrize(
    ("model_type", "settings", "expected"),
    [
        ("mixtral", {"num_local_experts": 8, "num_experts_per_tok": 2}, {"llama.expert_count": 8, "llama.expert_used_count": 2}),
        (
            "qwen2_moe",
            {"num_experts": 60, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 48},
            {"qwen2moe.expert_count": 60, "qwen2moe.expert_feed_forward_length": 24, "qwen2moe.expert_shared_feed_forward_length": 48},
        ),
        ("qwen3", {"head_dim": 48, "hidden_size": 64}, {"qwen3.attention.key_length": 48, "qwen3.rope.dimension_count": 48}),
        ("gemma2", {}, {"gemma2.attn_logit_softcapping": 50.0, "gemma2.final_logit_softcapping": 30.0, "gemma2.attention.sliding_window": 4096}),
        ("gemma3_text", {}, {"gemma3.rope.freq_base": 1e6, "gemma3.rope.freq_base_swa": 1e4, "gemma3.attention.sliding_window": 4096}),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e3, "factor": 2.0}},
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0, "llama.rope.freq_base": 5e3},
        ),
        (
            "qwen3",
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}},
            {"qwen3.rope.scaling.type": "yarn", "qwen3.rope.scaling.original_context_length": 32},
        ),
    ],
)
def test_what_an_architecture_adds(model_type, settings, expected):
    found = values(model_type, **settings)
    assert {key: found[key] for key in expected} == expected


def test_which_layers_of_gemma_slide():
    found = entries("gemma3_text", num_hidden_layers=7)["gemma3.attention.sliding_window_pattern"]
    assert found.value == [True] * 5 + [False, True]
    assert (found.type, found.item) == (GGUFValueType.ARRAY, GGUFValueType.BOOL)


@pytest.mark.parametrize(
    ("rope", "said"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "this model has 'dynamic'"),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "beta_fast": 16}, "'yarn' with beta_fast = 16"),
    ],
)
def test_a_rotary_embedding_that_llama_cpp_does_not_compute_is_refused(rope, said):
    with pytest.raises(ModelError, match=said):
        values("llama", rope_parameters={"rope_theta": 1e4, **rope})


SCALED = {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "qwen3", "gemma2", "gemma3_text"])
def test_a_configuration_agrees_with_its_own_entries(model_type):
    require_alike(AutoConfig.for_model(model_type), entries(model_type).values(), ["token_embd.weight"])


@pytest.mark.parametrize(
    ("model_type", "said", "tensors", "named"),
    [
        ("llama", SCALED, [], "llama.rope.scaling.type, llama.rope.scaling.factor"),
        ("llama", {"head_dim": 32}, [], "llama.attention.key_length"),
        ("llama", {}, ["rope_freqs.weight"], "rope_freqs.weight"),
        ("gemma2", {"attn_logit_softcapping": 20.0}, [], "gemma2.attn_logit_softcapping"),
        ("gemma3_text", {"sliding_window": 512}, [], "gemma3.attention.sliding_window:"),
    ],
)
def test_a_file_that_transformers_would_compute_otherwise_is_refused(model_type, said, tensors, named):
    with pytest.raises(ModelError, match=named):
        require_alike(AutoConfig.for_model(model_type), entries(model_type, **said).values(), tensors)
