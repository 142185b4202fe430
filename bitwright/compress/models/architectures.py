"""Table of the architectures that llama.cpp supports, one row each, and the mapping of their tensors to the parameters of a transformers module.

Names come from the tensor maps of the `gguf` package. A row adds the settings that llama.cpp hard-codes for an architecture instead of reading them
from the file (its `src/models/*.cpp`): a checkpoint with other settings would load and compute something else, so it is refused here.
"""

from dataclasses import dataclass, replace
from typing import Any

import gguf
from torch import Tensor as Torch
from transformers import PreTrainedConfig, PreTrainedModel

from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.tensor_layout import ParameterSlice, interleaved
from bitwright.errors import ModelError

Assumption = tuple[str, tuple[Any, ...]]  # key of the configuration, and the values that llama.cpp supports for it

_SILU: Assumption = ("hidden_act", ("silu", "swish"))
_GELU_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
_CORRECTION = "e_score_correction_bias"  # a persistent buffer of the router's module
_EVERY_LAYER_SPARSE: tuple[Assumption, ...] = (("decoder_sparse_step", (1,)), ("mlp_only_layers", ([], None)))


@dataclass(frozen=True)
class Architecture:
    """Architecture of llama.cpp and the settings it hard-codes.

    `rotary_interleaved`: the rows of q and k pair neighbouring dimensions. `norms_plus_one`: transformers keeps the weight of a norm minus one.
    `sliding`: the engine supports sliding-window layers. `width_scaled_depth`: the number of blocks at which attention is scaled by hidden size /
    number of heads instead of by the head dimension, 0 for never. `latent`: multi-head latent attention, which caches one narrow vector per token;
    see `latent_attention.py`.
    """

    name: str
    layout: gguf.MODEL_ARCH
    assumed: tuple[Assumption, ...]
    rotary_interleaved: bool = False
    norms_plus_one: bool = False
    sliding: bool = False
    width_scaled_depth: int = 0
    latent: bool = False


ARCHITECTURES = {
    row.name: row
    for row in (
        Architecture("llama", gguf.MODEL_ARCH.LLAMA, (_SILU,), rotary_interleaved=True),
        Architecture("qwen2", gguf.MODEL_ARCH.QWEN2, (_SILU,)),
        Architecture("qwen2moe", gguf.MODEL_ARCH.QWEN2MOE, (_SILU, ("norm_topk_prob", (False,)), *_EVERY_LAYER_SPARSE)),
        Architecture("qwen3", gguf.MODEL_ARCH.QWEN3, (_SILU,)),
        Architecture("qwen3moe", gguf.MODEL_ARCH.QWEN3MOE, (_SILU, ("norm_topk_prob", (True,)), *_EVERY_LAYER_SPARSE)),
        Architecture("olmoe", gguf.MODEL_ARCH.OLMOE, (_SILU, ("norm_topk_prob", (False,)), ("clip_qkv", (None,)))),
        Architecture(
            "deepseek2",
            gguf.MODEL_ARCH.DEEPSEEK2,
            (_SILU, ("rope_interleave", (True,)), ("topk_method", ("greedy", "noaux_tc")), ("attention_bias", (False,)), ("mlp_bias", (False,))),
            latent=True,
        ),
        # `gelu` in the older configurations of Gemma was a mistake: the weights were trained with the tanh form.
        Architecture("gemma", gguf.MODEL_ARCH.GEMMA, (("hidden_act", (*_GELU_TANH, "gelu")),), norms_plus_one=True),
        Architecture(
            "gemma2",
            gguf.MODEL_ARCH.GEMMA2,
            (("hidden_activation", _GELU_TANH),),
            norms_plus_one=True,
            sliding=True,
            width_scaled_depth=46,
        ),
        Architecture(
            "gemma3",
            gguf.MODEL_ARCH.GEMMA3,
            (("hidden_activation", _GELU_TANH), ("use_bidirectional_attention", (False, None))),
            norms_plus_one=True,
            sliding=True,
            width_scaled_depth=62,
        ),
    )
}

#: transformers' `model_type` → llama.cpp's architecture
MODEL_TYPES = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "olmoe": "olmoe",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
}


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """Return the llama.cpp architecture of a transformers configuration.

    Raises:
        ModelError: the model type is not supported, or llama.cpp hard-codes another value for one of its settings.
    """
    settings = config.to_dict()
    model_type = settings["model_type"]
    if model_type not in MODEL_TYPES:
        raise ModelError(f"A model must be of a supported type; '{model_type}' is not: choose one of {', '.join(MODEL_TYPES)}.")
    architecture = ARCHITECTURES[MODEL_TYPES[model_type]]
    for key, computed in (*architecture.assumed, *_attention_scale(architecture, settings)):
        if key in settings and settings[key] not in computed:
            raise ModelError(
                f"llama.cpp computes {model_type} with {key} = {computed[0]} only; this model has {settings[key]}: choose a model configured so."
            )
    return architecture


def window_ignored(config: PreTrainedConfig) -> int:
    """Return the sliding window, in tokens, that transformers applies and llama.cpp ignores for this architecture (it does not read
    `attention.sliding_window` there); 0 if there is none.

    Raises:
        ModelError: see `architecture_of`.
    """
    if config.model_type not in MODEL_TYPES:
        return 0
    settings, architecture = config.to_dict(), architecture_of(config)
    window, kinds = settings.get("sliding_window"), settings.get("layer_types") or ["sliding_attention"]
    applied = settings.get("use_sliding_window", True) and "sliding_attention" in kinds
    return int(window) if window and applied and not architecture.sliding else 0


def lay_out(module: PreTrainedModel, architecture: str) -> dict[str, tuple[ParameterSlice, ...]]:
    """Map every engine tensor, vectors included, to the slices of the parameters of `module` that make it up, in the module's order.

    `architecture` is llama.cpp's name; the module may come from a transformers checkpoint or from a GGUF file that transformers read.

    Raises:
        ModelError: the architecture is not supported, or has no tensor for a parameter.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"A model must be of a supported architecture; '{architecture}' is not: choose a model of one of {known}.")
    row = ARCHITECTURES[architecture]
    settings = module.config.to_dict()
    heads = {"attn_q": settings["num_attention_heads"], "attn_k": settings["num_key_value_heads"]} if row.rotary_interleaved else {}
    names = gguf.get_tensor_name_map(row.layout, settings["num_hidden_layers"])
    found = {}
    for parameter, weight in weights_of(module).items():
        for part, pieces in _parts(parameter, weight):
            name = _engine_name(part, names, architecture)
            rotary = heads.get(name.split(".")[-2], 0)
            if rotary:
                pieces = [replace(piece, rows=interleaved(piece.start, piece.stop, rotary)) for piece in pieces]
            found[name] = tuple(pieces)
    return found


def bind(module: PreTrainedModel, architecture: str) -> dict[str, tuple[ParameterSlice, ...]]:
    """Map every engine matrix to its slices of the parameters of `module`: `lay_out` without the vectors.

    Raises:
        ModelError: the architecture is not supported, or has no tensor for a parameter.
    """
    weights = weights_of(module)
    return {name: pieces for name, pieces in lay_out(module, architecture).items() if len(engine_shape(pieces, weights[pieces[0].parameter])) > 1}


def engine_shape(pieces: tuple[ParameterSlice, ...], weight: Torch) -> tuple[int, ...]:
    """Return the shape, row length last, of the engine tensor that `pieces` of the parameter `weight` make up.

    It is `(n,)` for a vector and for a matrix of one row, which the engine treats as a vector; `(n_rows, n_columns)` for a matrix; and
    `(n_experts, n_rows, n_columns)` for stacked experts.
    """
    if weight.dim() == 3:
        return (len(pieces), pieces[0].n_rows, weight.shape[-1])
    return (weight.numel(),) if 1 in (weight.dim(), weight.shape[0]) else tuple(weight.shape)


def _parts(parameter: str, weight: Torch) -> list[tuple[str, list[ParameterSlice]]]:
    """List the engine tensors in one parameter as (name, with fused gate and up split; slices)."""
    if weight.dim() < 3:
        return [(parameter, [ParameterSlice(parameter, -1, range(weight.shape[0]))])]
    n_experts, n_rows = weight.shape[:2]  # (n_experts, n_rows, n_columns)
    if not parameter.endswith("gate_up_proj"):
        return [(parameter, [ParameterSlice(parameter, expert, range(n_rows)) for expert in range(n_experts)])]
    stem, half = parameter.removesuffix("gate_up_proj"), n_rows // 2
    return [
        (f"{stem}gate_proj", [ParameterSlice(parameter, expert, range(half)) for expert in range(n_experts)]),
        (f"{stem}up_proj", [ParameterSlice(parameter, expert, range(half, n_rows)) for expert in range(n_experts)]),
    ]


def _engine_name(part: str, names: gguf.TensorNameMap, architecture: str) -> str:
    name = names.get_name(part.replace(_CORRECTION, "e_score_correction.bias"), try_suffixes=(".weight", ".bias"))
    if name is None:
        raise ModelError(f"Every parameter needs a tensor of llama.cpp's {architecture}; '{part}' has none: choose a model without it.")
    return name if name.endswith((".weight", ".bias")) else f"{name}.weight"


def _attention_scale(architecture: Architecture, settings: dict[str, Any]) -> tuple[Assumption, ...]:
    """Return the assumption about attention scale for this depth: llama.cpp recognises the largest Gemma 2 and 3, which scale differently, by their
    number of blocks alone.
    """
    if not architecture.width_scaled_depth:
        return ()
    wide = settings["num_hidden_layers"] == architecture.width_scaled_depth
    return (("query_pre_attn_scalar", (settings["hidden_size"] // settings["num_attention_heads"] if wide else settings["head_dim"],)),)
