"""Settings that families of several kinds share."""

from typing import Any

WINDOW = 16  # tokens; shorter than any text that is measured

TIED = {"tie_word_embeddings": True}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MULTIPLIERS = {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}


def partial(share: float, **rope: object) -> dict[str, Any]:
    """Return the settings of rotary embeddings of a `share` of each head; `rope` are further ones of theirs."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": share, **rope}}


def windows(n_sliding: int = 1, *, times: int = 1) -> dict[str, Any]:
    """Return the settings of layers with a window, `n_sliding` of them before each that has none."""
    kinds = [*["sliding_attention"] * n_sliding, "full_attention"] * times
    return {"sliding_window": WINDOW, "layer_types": kinds, "num_hidden_layers": len(kinds)}


WINDOWS = windows()
#: a layer of gated delta nets and one of attention, but for the rotary embeddings
DELTA = {
    "head_dim": 32,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
