"""Families that wrap a language model together with the encoder of another medium."""

from benchmarks.families.family import N_PIECES, Family
from benchmarks.families.settings import DELTA, EXPERTS, TIED, WINDOW, WINDOWS, partial, windows

_MEDIA = {"image_token_id": 380, "video_token_id": 379, "vision_start_token_id": 378, "vision_end_token_id": 377}
_SIGLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
_QWEN3_MROPE = {"head_dim": 32, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5], "mrope_interleaved": True}}
_QWEN3_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 8,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}
_DELTA = {**DELTA, **partial(0.5, mrope_section=[3, 3, 2], mrope_interleaved=True)}
_QWEN3_5_VISION = {key: value for key, value in _QWEN3_VISION.items() if key != "deepstack_visual_indexes"}
_ENCODER = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64, "patch_size": 8}
_GLM_VISION = {**_ENCODER, "image_size": 32}
_GLM_MROPE = partial(0.5, mrope_section=[2, 1, 1])

WRAPPERS = (
    Family(
        "qwen2-vl",
        "qwen2_vl",
        _MEDIA,
        text={**_MROPE},
        vision={"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 8, "mlp_ratio": 2},
    ),
    Family(
        "qwen2-5-vl",
        "qwen2_5_vl",
        _MEDIA,
        text={**_MROPE},
        vision={**_ENCODER, "fullatt_block_indexes": [0]},
    ),
    Family("qwen3-vl", "qwen3_vl", _MEDIA, text=_QWEN3_MROPE, vision=_QWEN3_VISION),
    Family("qwen3-vl-moe", "qwen3_vl_moe", _MEDIA, text={**_QWEN3_MROPE, **EXPERTS}, vision=_QWEN3_VISION),
    Family("qwen3-5", "qwen3_5", _MEDIA, text=_DELTA, vision=_QWEN3_5_VISION),
    Family("qwen3-5-moe", "qwen3_5_moe", _MEDIA, text={**_DELTA, **EXPERTS, "shared_expert_intermediate_size": 64}, vision=_QWEN3_5_VISION),
    Family(
        "gemma3",
        "gemma3",
        {"mm_tokens_per_image": 4, "image_token_index": 380, "boi_token_index": 379, "eoi_token_index": 378, **TIED},
        text={**TIED, **windows(5), "head_dim": 32, "query_pre_attn_scalar": 32},
        vision=_SIGLIP,
        pieces="gemma",
        deviation=1.0,
    ),
    Family(
        "mistral3",
        "mistral3",
        {"image_token_index": 380},
        text={"model_type": "mistral", "head_dim": 32, "sliding_window": None},
        vision={**_SIGLIP, "head_dim": 16},
    ),
    Family("llava", "llava", {"image_token_index": 380}, text={"model_type": "llama"}, vision={"model_type": "clip_vision_model", **_SIGLIP}),
    Family(
        "llava-next",
        "llava_next",
        {"image_token_index": 380},
        text={"model_type": "mistral", "sliding_window": None},
        vision={"model_type": "clip_vision_model", **_SIGLIP},
        pieces="spm",
    ),
    Family(
        "llama4",
        "llama4",
        {"image_token_index": 380},
        text={
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "num_hidden_layers": 4,
            "interleave_moe_layer_step": 1,
            "intermediate_size": 64,
            "intermediate_size_mlp": 128,
            "head_dim": 16,
            "no_rope_layers": [1, 1, 1, 0],
        },
        vision={
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
            "vision_output_dim": 64,
            "projector_input_dim": 64,
            "projector_output_dim": 64,
        },
    ),
    Family("idefics3", "idefics3", {"image_token_id": 380}, text={"model_type": "llama"}, vision=_SIGLIP),
    Family("smolvlm", "smolvlm", {"image_token_id": 380, **TIED}, text={"model_type": "llama", **TIED}, vision=_SIGLIP),
    Family(
        "paligemma",
        "paligemma",
        {"image_token_index": 380, **TIED},
        text={"model_type": "gemma", "head_dim": 32, **TIED},
        vision={"model_type": "siglip_vision_model", **_SIGLIP},
        pieces="gemma",
        deviation=1.5,
    ),
    Family(
        "internvl",
        "internvl",
        {"image_token_id": 380},
        text={"model_type": "qwen2"},
        vision={**_SIGLIP, "image_size": [32, 32], "patch_size": [16, 16]},
    ),
    Family(
        "aya-vision",
        "aya_vision",
        {"image_token_index": 380},
        text={"model_type": "cohere2", **TIED, **WINDOWS, "head_dim": 32, "logit_scale": 0.5},
        vision={"model_type": "siglip_vision_model", **_SIGLIP},
        deviation=3.0,
    ),
    Family(
        "lfm2-vl",
        "lfm2_vl",
        {"image_token_id": 380},
        text={"model_type": "lfm2", "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False, **TIED},
        vision={
            "model_type": "siglip2_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "patch_size": 16,
            "num_patches": 16,
        },
    ),
    Family("glm4v", "glm4v", {"image_token_id": 380, "video_token_id": 379}, text={**_GLM_MROPE, "head_dim": 16}, vision=_GLM_VISION),
    Family(
        "glm4v-moe",
        "glm4v_moe",
        {"image_token_id": 380, "video_token_id": 379},
        text={
            **_GLM_MROPE,
            "head_dim": 16,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "moe_intermediate_size": 32,
            "num_hidden_layers": 3,
            "first_k_dense_replace": 1,
        },
        vision=_GLM_VISION,
    ),
    Family(
        "gemma4",
        "gemma4",
        {"image_token_id": 380, "audio_token_id": 379, **TIED},
        text={
            **TIED,
            "sliding_window": WINDOW,
            "head_dim": 32,
            "layer_types": ["sliding_attention", "full_attention"],
            "vocab_size": N_PIECES + 1,
            "vocab_size_per_layer_input": N_PIECES + 1,
            "hidden_size_per_layer_input": 64,
        },
        vision={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": 8,
            "position_embedding_size": 64,
        },
        pieces="gemma",
        deviation=1.5,
    ),
    Family(
        "mllama",
        "mllama",
        {"image_token_index": 380},
        text={"cross_attention_layers": [1]},
        vision={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [0],
        },
    ),
)
