"""Families with routed experts."""

from benchmarks.families.family import Family
from benchmarks.families.settings import EXPERTS, MULTIPLIERS, TIED, WINDOW, WINDOWS, YARN, partial

_LOCAL = {"num_local_experts": 8, "num_experts_per_tok": 2}
_DEEP = {"num_hidden_layers": 3, "mlp_layer_types": ["dense", "sparse", "sparse"]}
_ROUTED = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 2, "routed_scaling_factor": 1.5}
_LATENT = {
    **_ROUTED,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "q_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
}
_SIGMOID = {"scoring_func": "sigmoid", "topk_method": "noaux_tc"}
_GROUPS = {"n_group": 4, "topk_group": 2}
_INDEXER = {"index_topk": WINDOW, "index_head_dim": 32, "index_n_heads": 2}


ROUTED = (
    Family("mixtral", "mixtral", {**_LOCAL, "sliding_window": None}, pieces="spm"),
    Family("qwen2-moe", "qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 64}),
    Family("qwen3-moe", "qwen3_moe", {**EXPERTS, "norm_topk_prob": True, "head_dim": 32}),
    Family("olmoe", "olmoe", {"num_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 32, "num_key_value_heads": 4}),
    Family("flex-olmo", "flex_olmo", {"num_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 32, "num_key_value_heads": 4}),
    Family(
        "phimoe",
        "phimoe",
        {
            **_LOCAL,
            "attention_bias": True,
            "lm_head_bias": True,
            "sliding_window": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "original_max_position_embeddings": 256},
        },
        stored={"architectures": ["PhiMoEForCausalLM"]},
        pieces="spm",
    ),
    Family(
        "gpt-oss",
        "gpt_oss",
        {**_LOCAL, **WINDOWS, "head_dim": 32, "intermediate_size": 64, "rope_parameters": {**YARN, "truncate": False}},
    ),
    Family(
        "llama4-text",
        "llama4_text",
        {
            "num_local_experts": 8,
            "num_experts_per_tok": 1,
            "num_hidden_layers": 4,
            "interleave_moe_layer_step": 2,
            "moe_layers": [1, 3],
            "intermediate_size": 64,
            "intermediate_size_mlp": 128,
            "head_dim": 16,
            "no_rope_layers": [1, 1, 1, 0],
        },
    ),
    Family("deepseek-v2", "deepseek_v2", {**_LATENT, "topk_method": "greedy"}),
    Family(
        "deepseek-v3",
        "deepseek_v3",
        {**_LATENT, **_GROUPS, "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}},
        stored=_SIGMOID,
    ),
    Family("deepseek-v32", "deepseek_v32", {**_LATENT, **_GROUPS, **_INDEXER}, stored=_SIGMOID, pieces="bpe-bos"),
    Family("glm4-moe", "glm4_moe", {**_ROUTED, **partial(0.5), "num_hidden_layers": 3, "use_qk_norm": True, "attention_bias": True, "head_dim": 32}),
    Family("glm4-moe-lite", "glm4_moe_lite", {**_LATENT, "mlp_layer_types": ["dense", "sparse", "sparse"]}, stored=_SIGMOID),
    Family("glm5", "glm_moe_dsa", {**_LATENT, **_INDEXER, "indexer_types": ["full"] * 3}, stored=_SIGMOID),
    Family("granite-moe", "granitemoe", {**TIED, **_LOCAL, **MULTIPLIERS, "intermediate_size": 32}, deviation=3.0),
    Family(
        "granite-moe-shared",
        "granitemoeshared",
        {**TIED, **_LOCAL, **MULTIPLIERS, "intermediate_size": 32, "shared_intermediate_size": 64},
        deviation=3.0,
    ),
    Family(
        "ernie4-5-moe",
        "ernie4_5_moe",
        {
            "num_hidden_layers": 3,
            "intermediate_size": 128,
            "moe_intermediate_size": 32,
            "moe_k": 2,
            "moe_num_experts": 8,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 2,
            "moe_layer_interval": 1,
        },
        pieces="spm",
    ),
    Family("hunyuan-moe", "hunyuan_v1_moe", {**TIED, "num_experts": 8, "moe_topk": 2, "intermediate_size": 32, "head_dim": 32}),
    Family(
        "dots1",
        "dots1",
        {**_ROUTED, "num_hidden_layers": 3, "first_k_dense_replace": 1, "norm_topk_prob": True, "sliding_window": None, "num_key_value_heads": 4},
        stored=_SIGMOID,
    ),
    Family(
        "dbrx",
        "dbrx",
        {
            "vocab_size": 384,
            "d_model": 64,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 256,
            "attn_config": {"clip_qkv": 2.0, "kv_n_heads": 2, "rope_theta": 1e4},
            "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 8, "moe_top_k": 2, "hidden_size": 64},
        },
        shape={},
    ),
    Family("minimax-m2", "minimax_m2", {**_LOCAL, "head_dim": 32, "intermediate_size": 32, "rotary_dim": 16}, stored=_SIGMOID),
    Family("exaone-moe", "exaone_moe", {**EXPERTS, **_DEEP, "num_shared_experts": 1, "sliding_window": WINDOW, "head_dim": 16}, stored=_SIGMOID),
    Family("jetmoe", "jetmoe", {**_LOCAL, "kv_channels": 16, "num_key_value_heads": 2}),
    Family("solar-open", "solar_open", {**_ROUTED, **partial(1.0), "head_dim": 32}, stored=_SIGMOID),
    Family(
        "afmoe",
        "afmoe",
        {
            **EXPERTS,
            "num_hidden_layers": 4,
            "head_dim": 32,
            "num_shared_experts": 1,
            "mup_enabled": True,
            "global_attn_every_n_layers": 4,
            "sliding_window": WINDOW,
        },
        stored={"score_func": "sigmoid", "route_norm": True},
    ),
    Family("hy-v3", "hy_v3", {**EXPERTS, **_DEEP, "head_dim": 32}),
    Family("mellum", "mellum", {**_LOCAL, **WINDOWS, "moe_intermediate_size": 32, "head_dim": 32}),
    Family(
        "cohere2-moe",
        "cohere2_moe",
        {**TIED, **WINDOWS, "num_experts": 8, "num_experts_per_tok": 2, "head_dim": 32, "logit_scale": 0.5},
        deviation=4.0,
    ),
    Family(
        "longcat-flash",
        "longcat_flash",
        {
            "num_layers": 2,
            "ffn_hidden_size": 96,
            "expert_ffn_hidden_size": 32,
            "kv_lora_rank": 32,
            "q_lora_rank": 64,
            "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 16,
            "v_head_dim": 32,
            "head_dim": 16,
            "moe_topk": 2,
            "n_routed_experts": 8,
            "zero_expert_num": 2,
            "num_key_value_heads": 4,
        },
    ),
    Family("mimo-v2", "mimo_v2_flash", {**_ROUTED, "n_shared_experts": None, "head_dim": 32, "v_head_dim": 32, "sliding_window": WINDOW}),
)
