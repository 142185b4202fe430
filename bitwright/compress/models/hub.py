"""Resolution of a model's name to a GGUF file, a folder or a repository of the Hugging Face hub; and its configuration.

No code of a model is run and no pickle is loaded: only the files named here are downloaded.
"""

import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from bitwright.compress.models.checkpoints.checkpoint_shards import INDEX, WHOLE, weight_map
from bitwright.compress.models.checkpoints.configuration_file import CONFIG, read_configuration
from bitwright.compress.models.checkpoints.quantized.quantization import MODEL_OPTIMIZER_FILE, quantization_of_model
from bitwright.errors import ModelError, shown
from bitwright.spaces import TOKENIZER_BYTES

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
#: Tokenizer files of all supported architectures.
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "chat_template.jinja", "chat_template.json"),
)
#: Config and tokenizer files of a model; no others are downloaded or shipped.
WORDS = (CONFIG, "generation_config.json", *TOKENIZER)
_HEADERS = (*WORDS, INDEX, MODEL_OPTIMIZER_FILE)
# Without this transformers prompts for permission to run the code in the folder.
NO_CODE: dict[str, Any] = {"trust_remote_code": False}


def located(name: str) -> Path:
    """Return the file or folder of a model, downloaded first if `name` is a repository of the hub.

    Raises:
        ModelError: there is no model of that name.
    """
    path = Path(name)
    if os.path.exists(name):  # noqa: PTH110  a name that is too long is none, where `Path` raises
        return path
    if not _HUB_NAME.fullmatch(name) or path.suffix == ".gguf":
        raise ModelError(
            f"MODEL must be a GGUF file, a model folder or a hub name such as Qwen/Qwen3-4B; '{shown(name, 200)}' is none of them: check the path."
        )
    folder = _fetched(name, [*_HEADERS])
    return _fetched(name, [*_HEADERS, *(sorted(set(weight_map(folder).values())) or [WHOLE])])


def _fetched(name: str, files: list[str]) -> Path:
    """Download those of `files` that the repository `name` has, and return its folder; only files at the top level count."""
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=files))
    except Exception as error:  # the hub's client does not wrap the errors of its transport
        raise ModelError(f"There is no file or folder '{name}', and the hub gave no model of that name: check the name and the network.") from error


def configuration(path: Path) -> PreTrainedConfig:
    """Read the configuration of a folder.

    Raises:
        ModelError: there is none, it cannot be read, or its weights are quantized by a method that cannot be read here.
    """
    quantization_of_model(read_configuration(path), path)
    with quietly(path):
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, **NO_CODE)
    for inner in (config, config.get_text_config()):  # dequantized on reading
        vars(inner).pop("quantization_config", None)
    return config


def read_tokenizer(path: Path, **where: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder, or of the file that `where` names in it, and try it on a text.

    Raises:
        ModelError: transformers cannot load one, or it does not work.
    """
    for name in TOKENIZER:
        if (path / name).is_file() and (path / name).stat().st_size > TOKENIZER_BYTES:
            raise ModelError(f"A tokenizer's files must be shorter than {TOKENIZER_BYTES:,} bytes; {path / name} is not: download the model again.")
    with quietly(path):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, **where, **NO_CODE)
        split = tokenizer("a")["input_ids"]
    if not isinstance(tokenizer.model_max_length, (int, float)) or not all(isinstance(token, int) for token in split):
        raise ModelError(
            f"A tokenizer must have a number as its model_max_length and give numbers; that of {path} does not "
            f"({shown(tokenizer.model_max_length)}): download the model again."
        )
    if tokenizer.unk_token is not None and tokenizer.unk_token not in tokenizer.get_vocab():  # its id is then looked up for ever
        raise ModelError(
            f"A tokenizer's unk_token must be one of its tokens; that of {path} is {shown(repr(tokenizer.unk_token))}: download the model again."
        )
    return tokenizer


@contextmanager
def quietly(path: Path) -> Iterator[None]:
    """Silence transformers' progress bars and warnings, and turn its loading errors into a ModelError."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # its readers raise errors of many types
        why = shown(_reason(error), 400)
        raise ModelError(f"MODEL must be a causal language model that transformers can load; {path} is not: {why}.") from error
    finally:
        transformers.logging.set_verbosity(level)


def _reason(error: Exception) -> str:
    """Return the first line of the message, and the second if the first only announces it."""
    lines = [line.strip() for line in str(error).strip().split("\n")]
    return (" ".join(lines[:2] if lines[0].endswith(":") else lines[:1]) or type(error).__name__).rstrip(".! ")
