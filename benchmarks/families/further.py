"""Families that nobody had asked for: the newest model types, old ones, and wrappers of every kind, to see that nothing has to be added for them."""

from benchmarks.families.family import N_TOKENS, Family
from benchmarks.families.settings import EXPERTS, TIED, WINDOW, WINDOWS, partial

_LATENT = {
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
}
_SPARSE = {"mlp_layer_types": ["dense", "sparse", "sparse"]}
_GROUPS = {"n_group": 4, "topk_group": 2}
_INDEXER = {"index_topk": WINDOW, "index_head_dim": 32, "index_n_heads": 2}
_SIGLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}

FURTHER = (
    Family("axk1", "axk1", {**_LATENT, **_GROUPS, **_SPARSE}),
    Family("axk2", "axk2", {**_LATENT, **_SPARSE, **_INDEXER, "head_dim": 16, "gated_norm_rank": 8}),
    Family(
        "bailing-hybrid",
        "bailing_hybrid",
        {
            **_LATENT,
            **_GROUPS,
            "num_local_experts": 8,
            "num_hidden_layers": 4,
            "layer_group_size": 2,
            "first_k_dense_replace": 1,
            "head_dim": 32,
            "num_mtp_layers": 0,
        },
    ),
    Family("hy-v4", "hy_v4", {**_LATENT, **_SPARSE, **_INDEXER, "head_dim": 48, "hc_mult": 2, "indexer_types": ["full"] * 3}),
    Family(
        "minimax-m3-text",
        "minimax_m3_vl_text",
        {
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 3,
            "intermediate_size": 32,
            "dense_intermediate_size": 96,
            "shared_intermediate_size": 32,
            "head_dim": 32,
            "rotary_dim": 16,
            "index_n_heads": 2,
            "index_head_dim": 32,
            "index_block_size": 8,
            "index_topk_blocks": 2,
            **_SPARSE,
        },
    ),
    Family("zaya", "zaya", {**TIED, **EXPERTS, "num_experts_per_tok": 1, "num_hidden_layers": 4, "head_dim": 32, "router_hidden_size": 32}),
    Family(
        "xglm",
        "xglm",
        shape={"vocab_size": N_TOKENS, "d_model": 64, "ffn_dim": 96, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 256},
    ),
    Family("openai-gpt", "openai-gpt", shape={"vocab_size": N_TOKENS, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    Family("roberta-decoder", "roberta", {"is_decoder": True, "max_position_embeddings": 300, **TIED}),
    Family(
        "deepseek-v4",
        "deepseek_v4",
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "q_lora_rank": 32,
            "o_groups": 2,
            "o_lora_rank": 32,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "sliding_window": WINDOW,
            "hc_mult": 2,
            "index_n_heads": 2,
            "index_head_dim": 32,
            "index_topk": 8,
            "num_nextn_predict_layers": 0,
            **partial(0.5),
        },
    ),
    Family("lfm3", "lfm3", {**TIED, **WINDOWS, "head_dim": 32, "conv_L_cache": 3}),
    Family(
        "llava-onevision",
        "llava_onevision",
        {"image_token_index": 380, "video_token_index": 379},
        text={"model_type": "qwen2"},
        vision={"model_type": "siglip_vision_model", **_SIGLIP, "vision_use_head": False},
    ),
    Family(
        "vipllava",
        "vipllava",
        {"image_token_index": 380, "vision_feature_layers": [-1]},
        text={"model_type": "llama"},
        vision={"model_type": "clip_vision_model", **_SIGLIP},
    ),
    Family(
        "aria",
        "aria",
        {"image_token_index": 380},
        text={"moe_num_experts": 8, "moe_topk": 2, "moe_num_shared_experts": 1, "intermediate_size": 32},
        vision={"model_type": "idefics3_vision", **_SIGLIP},
    ),
    Family(
        "cohere2-vision",
        "cohere2_vision",
        {"image_token_id": 380, "alignment_intermediate_size": 64},
        text={"model_type": "cohere2", **TIED, **WINDOWS, "head_dim": 32, "logit_scale": 0.5},
        vision={"model_type": "siglip_vision_model", **_SIGLIP},
        deviation=3.0,
    ),
    Family(
        "got-ocr2",
        "got_ocr2",
        {"image_token_index": 380},
        text={"model_type": "qwen2", **TIED},
        vision={
            "hidden_size": 32,
            "output_channels": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "mlp_dim": 64,
            "global_attn_indexes": [0],
            "window_size": 2,
        },
    ),
)
