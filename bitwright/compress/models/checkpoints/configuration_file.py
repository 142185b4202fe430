"""Checked reading of a model's `config.json`: a JSON object whose counts are within what any model has.

transformers allocates lists and modules by these counts without checking them, so a `num_hidden_layers` of 10²³ would never end.
"""

from pathlib import Path
from typing import Any

from bitwright.errors import ModelError, shown
from bitwright.spaces import small_json

CONFIG = "config.json"
_INTEGER = 2**53  # largest magnitude of any other whole number
_VOCABULARY, _WIDTH, _PARTS, _LAYERS = 2**24, 2**20, 2**14, 2**11
#: setting → its upper bound; the lower bound is 1, or 0 where the count may be zero
_AT_MOST = {
    "vocab_size": _VOCABULARY,
    "hidden_size": _WIDTH,
    "intermediate_size": _WIDTH,
    "moe_intermediate_size": _WIDTH,
    "head_dim": _WIDTH,
    "v_head_dim": _WIDTH,
    "kv_lora_rank": _WIDTH,
    "qk_nope_head_dim": _WIDTH,
    "qk_rope_head_dim": _WIDTH,
    "num_attention_heads": _PARTS,
    "num_key_value_heads": _PARTS,
    "num_hidden_layers": _LAYERS,
}
_MAY_BE_ZERO = {
    "shared_expert_intermediate_size": _WIDTH,
    "q_lora_rank": _WIDTH,
    "num_local_experts": _PARTS,
    "num_experts": _PARTS,
    "n_routed_experts": _PARTS,
    "n_shared_experts": _PARTS,
    "num_experts_per_tok": _PARTS,
    "n_group": _PARTS,
    "topk_group": _PARTS,
    "first_k_dense_replace": _LAYERS,
    "max_position_embeddings": 2**31,
}


def read_configuration(folder: Path) -> dict[str, Any]:
    """Read the `config.json` of a folder.

    Raises:
        ModelError: there is none, it is not a JSON object, or a count is out of range.
    """
    path = folder / CONFIG
    try:
        config = small_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"A model folder must hold a readable {CONFIG}; {folder} does not ({shown(error, 200)}): give the folder that `save_pretrained` wrote."
        ) from error
    for key, at_most in (_AT_MOST | _MAY_BE_ZERO).items():
        _require_count(config, key, at_most=at_most, folder=folder)
    _require_numbers(config, folder)
    return config


def quantization_of(folder: Path) -> dict[str, Any]:
    """Return the `quantization_config` of a folder's configuration; empty if it has none.

    Raises:
        ModelError: see `read_configuration`; or it is not a mapping.
    """
    return quantization_in(read_configuration(folder), folder) if (folder / CONFIG).is_file() else {}


def quantization_in(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the `quantization_config` of `config`, which was read from `folder`; empty if it has none.

    Raises:
        ModelError: it is not a mapping.
    """
    found = config.get("quantization_config") or {}
    if not isinstance(found, dict):
        raise ModelError(f"A configuration's quantization_config must be a mapping; that of {folder} is '{shown(found)}': download the model again.")
    return found


def _require_count(config: dict[str, Any], key: str, *, at_most: int, folder: Path) -> None:
    value, least = config.get(key), int(key in _AT_MOST)
    of_layers = value if isinstance(value, list) and value and len(value) <= _LAYERS else [value]
    if value is not None and not all(type(count) is int and least <= count <= at_most for count in of_layers):
        raise ModelError(
            f"A configuration's {key} must be a whole number from {least} to {at_most:,}; that of {folder} is {shown(value)}: download the model "
            "again."
        )


def _require_numbers(config: dict[str, Any], folder: Path) -> None:
    level: list[tuple[str, Any]] = list(config.items())
    while level:
        for key, value in level:
            if isinstance(value, int) and not -_INTEGER <= value <= _INTEGER:
                raise ModelError(
                    f"Whole numbers of a configuration must be within 2^53; {shown(key)} of {folder} is {shown(value)}: download the model again."
                )
        level = [(key, inner) for key, value in level if isinstance(value, (dict, list)) for inner in _inside(value)]


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
