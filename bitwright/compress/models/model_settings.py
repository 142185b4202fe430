"""The part of a model's identity that is no weight: its configuration, its tokenizer, the metadata of its file, by name.

Equal weights compute something else with another `rope_theta`, another epsilon, or two words of the vocabulary swapped. So a plan and a run keep
these beside the fingerprint of the weights, each under the key that a person would look for, and say which one differs.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFValueType

from bitwright.compress.models.source import KeyValue, Source

#: of a configuration: where it comes from, how it was trained, how its weights are stored, what a call returns
_UNREAD = {
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "quantization_config",
    "use_cache",
    "architectures",
    "auto_map",
    "initializer_range",
    "attention_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "hidden_dropout",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "output_router_logits",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "tokenizer_class",
    "_attn_implementation",
}
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*", "spiece.model")
#: of a file's metadata: what it is called and how it is laid out
_UNREAD_GROUPS = ("general.", "quantize.", "split.", "imatrix.")
_LONGEST, _DIGITS, _SHOWN = 60, 16, 3
_ABSENT = "absent"


def settings_of_folder(config: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Each key of a configuration, with dots where it has keys of its own, and the digest of each file of the tokenizer."""
    files = sorted({path for pattern in _TOKENIZER for path in folder.glob(pattern) if path.is_file()})
    settings = {key: _told(json.dumps(value)) for key, value in _flat(config) if key.split(".")[0] not in _UNREAD}
    return settings | {path.name: _digest(path.read_bytes()) for path in files}


def settings_of_metadata(metadata: Iterable[KeyValue]) -> dict[str, str]:
    """Each entry of a GGUF file's metadata that changes what is computed, long ones by their digest."""
    read = (entry for entry in metadata if entry.key == "general.architecture" or not entry.key.startswith(_UNREAD_GROUPS))
    return {entry.key: _told(json.dumps(entry.value, default=repr) if entry.type is not GGUFValueType.STRING else str(entry.value)) for entry in read}


def unlike(kept: Mapping[str, str], source: Source) -> str:
    """How the model of `source` differs from that of a plan with the settings `kept`, in words, the first few keys; empty where it does not."""
    found = source.settings
    keys = [key for key in (*kept, *(key for key in found if key not in kept)) if kept.get(key) != found.get(key)]
    told = [f"{key} is {kept.get(key, _ABSENT)} in the plan's model and {found.get(key, _ABSENT)} in {source.name}" for key in keys[:_SHOWN]]
    more = [f"{len(keys) - _SHOWN} more differ"] if len(keys) > _SHOWN else []
    return ", ".join([*told, *more])


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _told(value: str) -> str:
    return value if len(value) <= _LONGEST else _digest(value.encode())


def _digest(data: bytes) -> str:
    return f"sha256 {hashlib.sha256(data).hexdigest()[:_DIGITS]}"
