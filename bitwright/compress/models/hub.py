"""What a user calls a model: a GGUF file, a folder or a name on the Hugging Face hub; and its configuration.

No code of a model is run and no pickle is loaded: only the files named here are ever fetched.
"""

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers
from transformers import AutoConfig, PreTrainedConfig

from bitwright.compress.models.architectures import recognise
from bitwright.compress.models.checkpoints.float8_blocks import block_of
from bitwright.errors import ModelError

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_WEIGHTS = "*.safetensors"
#: The files that say what a model is and how its texts are tokenized.
WORDS = ("*.json", "*.model", "*.jinja", "*.txt")
# Without this transformers asks whoever sits at the terminal whether to run the code in the folder.
NO_CODE: dict[str, Any] = {"trust_remote_code": False}


def located(name: str) -> Path:
    """Where the model lies: the file or folder itself, or the folder of what the hub gave.

    Raises:
        ModelError: there is none of that name.
    """
    path = Path(name)
    if path.exists():
        return path
    if not _HUB_NAME.fullmatch(name) or path.suffix == ".gguf":
        raise ModelError(f"MODEL must be a GGUF file, a model folder or a hub name such as Qwen/Qwen3-4B; '{name}' is none of them: check the path.")
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[*WORDS, _WEIGHTS]))
    except Exception as error:  # the hub's client lets those of its own transport through
        raise ModelError(f"There is no file or folder '{name}', and the hub gave no model of that name: check the name and the network.") from error


def configuration(path: Path) -> PreTrainedConfig:
    """The configuration of a folder, of an architecture that is supported.

    Raises:
        ModelError: there is none, it cannot be read, or it describes something else.
    """
    if not (path / "config.json").is_file():
        raise ModelError(f"A model folder must hold a config.json; {path} does not: give the folder that `save_pretrained` wrote.")
    with quietly(path):
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, **NO_CODE)
    settings = quantization_of(path)
    if block_of(settings) != (0, 0):
        del config.quantization_config  # read as the floats that are meant, see float8_blocks.py
    elif settings:
        method = settings.get("quant_method", "in a way that its configuration does not name")
        raise ModelError(
            f"MODEL must be one whose weights are floats, or a GGUF file; {path} was quantized already ({method}): give the model that it was made "
            "from."
        )
    recognise(config)
    return config


def quantization_of(folder: Path) -> dict[str, Any]:
    """What the configuration of a folder says of how its weights are quantized; nothing where it says nothing."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found: dict[str, Any] = config.get("quantization_config") or {}
    return found


@contextmanager
def quietly(path: Path) -> Iterator[None]:
    """Keep transformers' progress bars, hints and warnings to itself, and tell in a sentence what it cannot load."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # its readers raise errors of many families
        raise ModelError(f"MODEL must be a causal language model that transformers can load; {path} is not: {_reason(error)}") from error
    finally:
        transformers.logging.set_verbosity(level)


def _reason(error: Exception) -> str:
    """The first line of the message, and the second where the first only announces it."""
    lines = [line.strip() for line in str(error).strip().split("\n")]
    return (" ".join(lines[:2] if lines[0].endswith(":") else lines[:1]) or type(error).__name__).rstrip(".! ") + "."
