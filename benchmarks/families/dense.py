"""Families of dense transformers."""

from benchmarks.families.family import N_PIECES, N_TOKENS, Family
from benchmarks.families.settings import MULTIPLIERS, TIED, WINDOW, WINDOWS, YARN, partial, windows

_WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3["original_max_position_embeddings"] = 32
_BOTH = {"attention_bias": True, "mlp_bias": True}
_CAPS = {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0}
_GPT = {"vocab_size": N_TOKENS, "n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4}
_NARROW_LATENT = {"kv_lora_rank": 32, "q_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 32}


def _two_thetas(*, sliding: float = 1e4, full: float = 1e5) -> dict[str, object]:
    return {
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": sliding},
            "full_attention": {"rope_type": "default", "rope_theta": full},
        }
    }


DENSE = (
    Family("llama", "llama", {**_WIDE, **_BOTH}),
    Family("llama3", "llama", {**TIED, "rope_parameters": _LLAMA3}, pieces="bpe-bos"),
    Family("mistral", "mistral", {"sliding_window": None}, pieces="spm"),
    Family("mistral-window", "mistral", {"sliding_window": WINDOW}, pieces="spm"),
    Family("ministral", "ministral", {**WINDOWS, "head_dim": 32}),
    Family(
        "ministral3", "ministral3", {"head_dim": 32, "rope_parameters": {**YARN, "llama_4_scaling_beta": 0.1, "mscale": 1.0, "mscale_all_dim": 1.0}}
    ),
    Family("qwen2", "qwen2", {**TIED}),
    Family("qwen2-window", "qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    Family("qwen3", "qwen3", {**_WIDE, "head_dim": 64}),
    Family("gemma", "gemma", {**TIED, "head_dim": 32}, pieces="gemma", deviation=1.5),
    Family("gemma2", "gemma2", {**TIED, **_CAPS, **WINDOWS, "head_dim": 32, "query_pre_attn_scalar": 32}, pieces="gemma", deviation=1.5),
    Family(
        "gemma3-text",
        "gemma3_text",
        {**TIED, **windows(5), **_two_thetas(), "head_dim": 32, "query_pre_attn_scalar": 32},
        pieces="gemma",
        deviation=1.0,
    ),
    Family(
        "gemma3n-text",
        "gemma3n_text",
        {
            **TIED,
            "head_dim": 32,
            **windows(4),
            "vocab_size_per_layer_input": N_TOKENS,
            "hidden_size_per_layer_input": 256,
            "num_kv_shared_layers": 0,
            "laurel_rank": 64,
            "activation_sparsity_pattern": [0.95] * 5,
        },
        pieces="gemma",
    ),
    Family(
        "gemma4-text",
        "gemma4_text",
        {
            **TIED,
            "num_hidden_layers": 4,
            "head_dim": 32,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "vocab_size": N_PIECES + 1,  # llama.cpp counts the tokens that the tokenizer has
            "vocab_size_per_layer_input": N_PIECES + 1,
            "hidden_size_per_layer_input": 64,
            "num_kv_shared_layers": 2,
            "global_head_dim": 64,
        },
        pieces="gemma",
        deviation=1.5,
    ),
    Family("glm", "glm", {**partial(0.5), "head_dim": 16, "attention_bias": True}, stored={"seq_length": 256}),
    Family("glm4", "glm4", {**partial(0.5), "head_dim": 32, "attention_bias": True}),
    Family("phi", "phi", {**partial(0.5), "num_key_value_heads": 4, "intermediate_size": 256}),
    Family("phi3", "phi3", {**_WIDE, "sliding_window": None}, pieces="spm"),
    Family("phi3-window", "phi3", {"sliding_window": WINDOW}, pieces="spm"),
    Family("olmo", "olmo", {"clip_qkv": 2.0}),
    Family("olmo2", "olmo2", {}),
    Family("olmo3", "olmo3", {**WINDOWS}),
    Family("smollm3", "smollm3", {**TIED, "num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]}),
    Family("granite", "granite", {**TIED, **MULTIPLIERS}, deviation=3.0),
    Family("granite-swa", "granite_swa", {**TIED, **MULTIPLIERS, **WINDOWS}, deviation=3.0),
    Family("starcoder2", "starcoder2", {"use_bias": True, **TIED}),
    Family("starcoder2-window", "starcoder2", {"use_bias": True, "sliding_window": WINDOW, **TIED}),
    Family("gpt2", "gpt2", TIED, stored={"n_ctx": 256}, shape=_GPT),
    Family("gpt-bigcode", "gpt_bigcode", {"multi_query": True, **TIED}, shape=_GPT),
    Family("gptj", "gptj", {"rotary_dim": 8, "tie_word_embeddings": False}, shape=_GPT),
    Family("codegen", "codegen", {"rotary_dim": 8, "tie_word_embeddings": False}, shape=_GPT),
    Family(
        "gpt-neo",
        "gpt_neo",
        {
            "vocab_size": N_TOKENS,
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 256,
            "attention_types": [[["global", "local"], 1]],
            "window_size": WINDOW,
        },
        shape={},
    ),
    Family("gpt-neox", "gpt_neox", {**partial(0.25), "use_parallel_residual": True}, stored={"rotary_pct": 0.25}),
    Family("bloom", "bloom", {"vocab_size": N_TOKENS, "hidden_size": 64, "n_layer": 2, "n_head": 4, **TIED}, stored={"seq_length": 256}, shape={}),
    Family("opt", "opt", {**TIED, "ffn_dim": 128, "word_embed_proj_dim": 64}),
    Family(
        "falcon", "falcon", {"multi_query": True, "num_kv_heads": 1, "new_decoder_architecture": False, "parallel_attn": True, "bias": False, **TIED}
    ),
    Family("falcon-new", "falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": False, **TIED}),
    Family(
        "mpt",
        "mpt",
        {"vocab_size": N_TOKENS, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 256, **TIED},
        stored={"architectures": ["MPTForCausalLM"]},
        shape={},
    ),
    Family("stablelm", "stablelm", {**partial(0.25), "use_qkv_bias": True, "use_parallel_residual": False}),
    Family("exaone4", "exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 2, "head_dim": 16}),
    Family("seed-oss", "seed_oss", {"head_dim": 32, "attention_bias": True}),
    Family("bitnet", "bitnet", {**TIED}, pieces="spm"),
    Family("apertus", "apertus", {"rope_parameters": _LLAMA3}),
    Family("arcee", "arcee", {"head_dim": 16, "mlp_bias": False}),
    Family("cohere", "cohere", {**TIED, "logit_scale": 0.5, "use_qk_norm": False}, deviation=4.0),
    Family("cohere2", "cohere2", stored={"rotary_pct": 1.0}, settings={**TIED, **windows(3), "logit_scale": 0.5, "head_dim": 16}, deviation=4.0),
    Family("nemotron", "nemotron", {**partial(0.5), "head_dim": 16}, pieces="spm", deviation=1.5),
    Family("ernie4-5", "ernie4_5", {**TIED, "head_dim": 32, "use_bias": False}, pieces="spm"),
    Family("hunyuan", "hunyuan_v1_dense", {**TIED, "head_dim": 32}),
    Family("jais2", "jais2", {**_BOTH, "head_dim": 16}),
    Family("internlm3", "internlm3", {"head_dim": 32}, pieces="spm"),
    Family(
        "minicpm3", "minicpm3", {**_NARROW_LATENT, "v_head_dim": 16, "num_key_value_heads": 4, "dim_model_base": 256}, pieces="spm", deviation=0.5
    ),
    Family("youtu", "youtu", {**TIED, **_NARROW_LATENT, "num_key_value_heads": 4}),
    Family("iquestcoder", "iquestcoder", {"head_dim": 32}),
    Family("helium", "helium", {"head_dim": 16}, pieces="spm"),
    Family("nanochat", "nanochat", {"final_logit_softcapping": 10.0}),
    Family("vaultgemma", "vaultgemma", {**TIED, **_CAPS, **WINDOWS, "head_dim": 32, "query_pre_attn_scalar": 24}, pieces="gemma"),
    Family("hyperclovax", "hyperclovax", {**MULTIPLIERS, "head_dim": 16}, deviation=1.5),
    Family("persimmon", "persimmon", {**partial(0.5), "qk_layernorm": True}),
    Family("modernbert-decoder", "modernbert-decoder", {**WINDOWS, **_two_thetas(), "cls_token_id": 1, "sep_token_id": 2, **TIED}),
)
