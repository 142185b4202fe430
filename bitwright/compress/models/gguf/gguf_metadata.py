"""Hyperparameters of a model as GGUF metadata, under the keys and types that llama.cpp reads.

Keys: `gguf-py/gguf/constants.py` of llama.cpp; the keys each architecture needs: its `src/models/*.cpp` and `convert_hf_to_gguf.py`. Differences: the
head dimensions and Gemma's pattern of sliding-window layers are always written.
"""

from collections.abc import Callable, Iterable
from math import isclose
from typing import Any

from gguf import GGUFValueType, LlamaFileType
from transformers import PreTrainedConfig

from bitwright.compress.models.architectures import Architecture, architecture_of
from bitwright.compress.models.source import KeyValue
from bitwright.errors import ModelError, shown

_U32, _F32, _BOOL, _STRING, _ARRAY = (
    GGUFValueType.UINT32,
    GGUFValueType.FLOAT32,
    GGUFValueType.BOOL,
    GGUFValueType.STRING,
    GGUFValueType.ARRAY,
)

#: `general.file_type` by the format that most weights are stored in.
FILE_TYPES = {"F32": LlamaFileType.ALL_F32, "F16": LlamaFileType.MOSTLY_F16, "BF16": LlamaFileType.MOSTLY_BF16}

_LARGEST_F32 = 3.4e38

#: The version of the block formats, which every quantized file states (`GGML_QNT_VERSION` in ggml.h).
QUANTIZATION_VERSION = 2

# key of the configuration, key of the metadata after the architecture's name, type
_SETTINGS = (
    ("num_hidden_layers", "block_count", _U32),
    ("max_position_embeddings", "context_length", _U32),
    ("hidden_size", "embedding_length", _U32),
    ("intermediate_size", "feed_forward_length", _U32),
    ("num_attention_heads", "attention.head_count", _U32),
    ("num_key_value_heads", "attention.head_count_kv", _U32),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon", _F32),
    ("attn_logit_softcapping", "attn_logit_softcapping", _F32),
    ("final_logit_softcapping", "final_logit_softcapping", _F32),
    ("num_local_experts", "expert_count", _U32),
    ("num_experts", "expert_count", _U32),
    ("num_experts_per_tok", "expert_used_count", _U32),
    ("moe_intermediate_size", "expert_feed_forward_length", _U32),
    ("shared_expert_intermediate_size", "expert_shared_feed_forward_length", _U32),
)

_LITE = (26, 27)  # numbers of blocks of DeepSeek models without low-rank queries (`is_lite` in `src/models/deepseek2.cpp`)
_SOFTMAX, _SIGMOID = 1, 2  # `llama_expert_gating_func_type` of llama.cpp

# YaRN settings that llama.cpp hard-codes for the architectures supported here.
_YARN = {
    "attention_factor": (None,),
    "mscale": (None,),
    "mscale_all_dim": (None,),
    "beta_fast": (None, 32),
    "beta_slow": (None, 1),
    "truncate": (None, True),
}


# Keys besides those of `_SETTINGS` that change the output of the model.
_COMPARED = (
    "attention.key_length",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
)


def scalar(key: str, value: Any, kind: GGUFValueType) -> KeyValue:
    """Return a metadata entry with one value.

    Raises:
        ModelError: the value, from a configuration or a tokenizer, is not of the type `kind`.
    """
    _require_type(key, value, kind)
    return KeyValue(key, value, kind, kind)


def array(key: str, values: Iterable[Any], item: GGUFValueType) -> KeyValue:
    """Return a metadata entry with a list of `item`s.

    Raises:
        ModelError: see `scalar`.
    """
    listed = list(values)
    for value in listed:
        _require_type(key, value, item)
    return KeyValue(key, listed, _ARRAY, item)


def _require_type(key: str, value: Any, kind: GGUFValueType) -> None:
    if not _FITS[kind](value):
        raise ModelError(f"A GGUF file holds {key} as {kind.name}; this model's is {shown(value)}: download or save the model again.")


_FITS: dict[GGUFValueType, Callable[[Any], bool]] = {
    _U32: lambda value: type(value) is int and 0 <= value < 2**32,
    GGUFValueType.INT32: lambda value: type(value) is int and -(2**31) <= value < 2**31,
    _F32: lambda value: type(value) in (int, float) and abs(value) < _LARGEST_F32,
    _BOOL: lambda value: type(value) is bool,
    _STRING: lambda value: isinstance(value, str) and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)),
}


def hyperparameters(config: PreTrainedConfig, architecture: Architecture, *, name: str, stored: str, n_tokens: int) -> tuple[KeyValue, ...]:
    """Return the metadata that llama.cpp needs besides the tensors and the tokenizer.

    `stored` is the format of the weight matrices (a key of `FILE_TYPES`) and `n_tokens` the number of rows of the token embedding.

    Raises:
        ModelError: llama.cpp does not support the model's RoPE scaling or expert groups.
    """
    settings = config.to_dict()
    head = settings.get("head_dim") or settings["hidden_size"] // settings["num_attention_heads"]
    entries = {
        "vocab_size": (n_tokens, _U32),
        "attention.key_length": (head, _U32),
        "attention.value_length": (head, _U32),
        "rope.dimension_count": (head, _U32),
    }
    entries |= {key: (settings[setting], kind) for setting, key, kind in _SETTINGS if settings.get(setting) is not None}
    entries |= _latent(settings) if architecture.latent else {}
    return (
        scalar("general.architecture", architecture.name, _STRING),
        scalar("general.type", "model", _STRING),
        scalar("general.name", name, _STRING),
        scalar("general.file_type", int(FILE_TYPES[stored]), _U32),
        scalar("general.quantization_version", QUANTIZATION_VERSION, _U32),
        *(scalar(f"{architecture.name}.{key}", value, kind) for key, (value, kind) in entries.items()),
        *_rotary(settings, architecture),
        *(_windows(settings, architecture.name) if architecture.sliding else ()),
    )


def require_alike(config: PreTrainedConfig, metadata: Iterable[KeyValue], tensors: Iterable[str]) -> None:
    """Require that transformers configured a module as the GGUF file that it was read from says.

    transformers ignores some metadata (RoPE scaling, sliding windows, soft caps) and then computes another model than llama.cpp. `config` is the
    configuration that transformers derived from the file; `metadata` and `tensors` (names) are the file's own.

    Raises:
        ModelError: the two disagree, or the architecture is not supported.
    """
    architecture = architecture_of(config)
    computed = {entry.key: entry.value for entry in hyperparameters(config, architecture, name="", stored="F32", n_tokens=0)}
    read = {f"{architecture.name}.{key}" for key in (*_COMPARED, *(key for _, key, _ in _SETTINGS if key != "context_length"))}
    wrong = [entry.key for entry in metadata if entry.key in read and not _same(entry.value, computed.get(entry.key))]
    if ("rope_freqs.weight" in tensors) != (config.to_dict()["rope_parameters"].get("rope_type") == "llama3"):
        wrong.append("rope_freqs.weight")
    if wrong:
        raise ModelError(
            f"transformers must compute the model that the GGUF file describes, to be measured in its place; it does not for {', '.join(wrong)}: "
            "give the model in the form of Hugging Face instead."
        )


def _same(said: Any, computed: Any) -> bool:
    if isinstance(said, float) and isinstance(computed, (int, float)):
        return isclose(said, computed, rel_tol=1e-6)  # the file rounds to float32
    return bool(said == computed) or (said == "none" and computed is None)


def _latent(settings: dict[str, Any]) -> dict[str, tuple[Any, GGUFValueType]]:
    """Return the metadata of DeepSeek's latent attention and of its routers."""
    rank, turned, value = settings["kv_lora_rank"], settings["qk_rope_head_dim"], settings["v_head_dim"]
    grouped = (settings.get("n_group") or 1) > 1
    corrected = settings["model_type"] == "deepseek_v3"
    if grouped and not corrected:
        raise ModelError(
            f"llama.cpp chooses among all experts of a layer for {settings['model_type']}; this model has n_group = {settings['n_group']}: choose a "
            "model without groups."
        )
    if not settings.get("q_lora_rank") and settings["num_hidden_layers"] not in _LITE:
        raise ModelError(
            f"llama.cpp supports queries without a low rank only in DeepSeek's lite models, of {' or '.join(map(str, _LITE))} blocks; this model has "
            f"{settings['num_hidden_layers']} and no q_lora_rank: choose a model that has it."
        )
    return {
        "attention.head_count_kv": (1, _U32),
        "attention.key_length": (rank + turned, _U32),
        "attention.value_length": (rank, _U32),
        "attention.key_length_mla": (settings["qk_nope_head_dim"] + turned, _U32),
        "attention.value_length_mla": (value, _U32),
        "attention.kv_lora_rank": (rank, _U32),
        **({"attention.q_lora_rank": (settings["q_lora_rank"], _U32)} if settings.get("q_lora_rank") else {}),
        "rope.dimension_count": (turned, _U32),
        "leading_dense_block_count": (settings["first_k_dense_replace"], _U32),
        "expert_count": (settings["n_routed_experts"], _U32),
        "expert_shared_count": (settings["n_shared_experts"], _U32),
        "expert_weights_scale": (settings["routed_scaling_factor"], _F32),
        # transformers ignores norm_topk_prob in DeepSeek-V2
        "expert_weights_norm": (corrected and settings["norm_topk_prob"], _BOOL),
        "expert_gating_func": (_SIGMOID if corrected else _SOFTMAX, _U32),
        **({"expert_group_count": (settings["n_group"], _U32), "expert_group_used_count": (settings["topk_group"], _U32)} if grouped else {}),
    }


def _rotary(settings: dict[str, Any], architecture: Architecture) -> list[KeyValue]:
    name, rope = architecture.name, settings["rope_parameters"]
    layers = rope.get("full_attention", rope)
    found = [scalar(f"{name}.rope.freq_base", layers["rope_theta"], _F32), *_scaling(settings, layers, architecture)]
    if "sliding_attention" in rope:
        found.append(scalar(f"{name}.rope.freq_base_swa", rope["sliding_attention"]["rope_theta"], _F32))
    return found


def _scaling(settings: dict[str, Any], rope: dict[str, Any], architecture: Architecture) -> list[KeyValue]:
    name, kind = architecture.name, rope.get("rope_type", "default")
    # Llama 3's factors are a tensor of the file, `rope_freqs.weight`.
    if kind in ("default", "llama3"):
        return []
    # DeepSeek's attention is scaled by `mscale_all_dim`, which llama.cpp reads, and its embedding by the ratio of the two, which is 1 there
    scaled = rope.get("mscale_all_dim") if architecture.latent and rope.get("mscale") == rope.get("mscale_all_dim") else None
    read = ("mscale", "mscale_all_dim") if scaled else ()
    refused = [key for key, computed in _YARN.items() if kind == "yarn" and key not in read and rope.get(key) not in computed]
    if kind not in ("linear", "yarn") or refused:
        found = f"'{kind}'" + "".join(f" with {key} = {rope[key]}" for key in refused)
        raise ModelError(
            f"The rotary embedding must be scaled in a way that llama.cpp computes (linear, plain yarn, llama3); this model has {found}: "
            "choose a model without it."
        )
    scaling = [scalar(f"{name}.rope.scaling.type", kind, _STRING), scalar(f"{name}.rope.scaling.factor", rope["factor"], _F32)]
    if kind == "yarn":
        original = rope.get("original_max_position_embeddings") or settings["max_position_embeddings"]
        scaling.append(scalar(f"{name}.rope.scaling.original_context_length", original, _U32))
        scaling += [scalar(f"{name}.rope.scaling.yarn_log_multiplier", 0.1 * scaled, _F32)] if scaled else []
    return scaling


def _windows(settings: dict[str, Any], name: str) -> list[KeyValue]:
    if settings["sliding_window"] is None:
        return []
    sliding = (layer == "sliding_attention" for layer in settings["layer_types"])
    return [
        scalar(f"{name}.attention.sliding_window", settings["sliding_window"], _U32),
        array(f"{name}.attention.sliding_window_pattern", sliding, _BOOL),
    ]
