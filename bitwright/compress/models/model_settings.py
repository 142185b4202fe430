"""Settings that identify a model besides its weights: configuration, tokenizer and file metadata, by name.

The same weights compute something else with another `rope_theta`, another epsilon or a permuted vocabulary. So a plan and a run record these settings
beside the fingerprint of the weights, each under its own key, and name the one that differs.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFValueType

from bitwright.compress.models.source import KeyValue, Source

#: keys of a configuration that do not change the output: origin, training, storage, return values
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
#: keys of GGUF metadata that do not change the output: names and layout
_UNREAD_GROUPS = ("general.", "quantize.", "split.", "imatrix.")
_LONGEST, _DIGITS, _SHOWN = 60, 16, 3
_ABSENT = "absent"


def settings_of_folder(config: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Return the settings of a folder: each key of the configuration, nested keys with dots, and the digest of each tokenizer file."""
    files = sorted({path for pattern in _TOKENIZER for path in folder.glob(pattern) if path.is_file()})
    settings = {key: _shortened(json.dumps(value)) for key, value in _flat(config) if key.split(".")[0] not in _UNREAD}
    return settings | {path.name: _digest(path.read_bytes()) for path in files}


def settings_of_metadata(metadata: Iterable[KeyValue]) -> dict[str, str]:
    """Return the metadata of a GGUF file that changes the output, long values by their digest."""
    read = (entry for entry in metadata if entry.key == "general.architecture" or not entry.key.startswith(_UNREAD_GROUPS))
    return {
        entry.key: _shortened(json.dumps(entry.value, default=repr) if entry.type is not GGUFValueType.STRING else str(entry.value)) for entry in read
    }


def describe_differences(recorded: Mapping[str, str], source: Source) -> str:
    """Describe the first few differences between the settings `recorded` in a plan and those of the model of `source`; empty if there are none."""
    found = source.settings
    keys = [key for key in (*recorded, *(key for key in found if key not in recorded)) if recorded.get(key) != found.get(key)]
    shown = [f"{key} is {recorded.get(key, _ABSENT)} in the plan's model and {found.get(key, _ABSENT)} in {source.name}" for key in keys[:_SHOWN]]
    more = [f"{len(keys) - _SHOWN} more differ"] if len(keys) > _SHOWN else []
    return ", ".join([*shown, *more])


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shortened(value: str) -> str:
    return value if len(value) <= _LONGEST else _digest(value.encode())


def _digest(data: bytes) -> str:
    return f"sha256 {hashlib.sha256(data).hexdigest()[:_DIGITS]}"
