"""Opened models: configuration, index, tokenizer and tensors, each read once and shared by all users.

`load`, `open_source` and `open_checkpoint_files` all begin here, so that they see the same model. Inconsistencies within a model (index and shards,
configuration and weights, unused tensors) are reported here, before anything is measured.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from bitwright.compress.models.auto_class import auto_class
from bitwright.compress.models.checkpoints.checkpoint import Shards
from bitwright.compress.models.checkpoints.configuration_file import read_configuration
from bitwright.compress.models.checkpoints.quantized.quantization import quantization_of_model
from bitwright.compress.models.gguf.gguf_rows import GgufRows
from bitwright.compress.models.gguf.gguf_tokenizer import restore_pre_tokenizer
from bitwright.compress.models.gguf.quick_reader import quick_reading
from bitwright.compress.models.gguf.reader import GgufSource
from bitwright.compress.models.gguf.same_model import require_same_tensors
from bitwright.compress.models.gguf.split_files import named_parts
from bitwright.compress.models.hub import NO_CODE, configuration, located, quietly, read_tokenizer
from bitwright.compress.models.joined_name import split_name
from bitwright.compress.models.model_settings import settings_of_folder
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.row_source import fill_parameter

_HEAD = "output.weight"
_KEPT_OPEN = 4  # opened models in memory; a run needs one


@dataclass(frozen=True, eq=False)
class FolderCheckpoint:
    """Model folder in transformers' format, assumed not to change.

    `name` is the user's name for it, `way` that to its GGUF file where the name has one (`joined_name.py`), `config_json` its raw `config.json`,
    `config` that parsed by transformers, `skeleton` its module on the meta device, and `shards` the weights.
    """

    name: str
    path: Path
    config: PreTrainedConfig
    config_json: Mapping[str, Any]
    skeleton: PreTrainedModel
    shards: Shards
    way: str

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Tokenizer of the folder.

        Raises:
            ModelError: it cannot be loaded.
        """
        return read_tokenizer(self.path, config=self.config)

    @property
    def settings(self) -> dict[str, str]:
        """Settings besides the weights that change the output, by name."""
        return settings_of_folder(self.config_json, self.path)

    @property
    def quantized(self) -> str:
        """Storage of the weights, if not as floats: `4-bit weights (gptq)`."""
        return self.shards.quantized

    @torch.no_grad()
    def module(self) -> PreTrainedModel:
        """Load a new module in float32 with the weights of the folder.

        Raises:
            ModelError: a weight cannot be read.
        """
        with quietly(self.path), no_init_weights():
            filled = made(self.config, dtype=torch.float32)
        filled.tie_weights()
        for name, weight in weights_of(filled).items():
            weight.copy_(self.shards.parameter(name))
        return filled


@dataclass(frozen=True, eq=False)
class GgufCheckpoint:
    """GGUF file, with the configuration and tokenizer that transformers derives from its metadata."""

    name: str
    path: Path
    source: GgufSource
    quantized: str = ""  # a GGUF file says itself what its types are

    @cached_property
    def config(self) -> PreTrainedConfig:
        """Configuration that transformers derives from the metadata.

        Raises:
            ModelError: transformers does not know the architecture.
        """
        with quietly(self.path), quick_reading():
            found: PreTrainedConfig = AutoConfig.from_pretrained(self.path.parent, gguf_file=self.path.name, **NO_CODE)
        if len(self.source.parts) > 1:  # transformers looks for the head in the first part alone
            found.tie_word_embeddings = all(tensor.name != _HEAD for tensor in self.source.tensors)
        return found

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Tokenizer of the file, with llama.cpp's pre-tokenizer.

        Raises:
            ModelError: it cannot be loaded.
        """
        with quick_reading():
            found = read_tokenizer(self.path.parent, gguf_file=self.path.name)
        pre_tokenizer = next((str(entry.value) for entry in self.source.metadata if entry.key == "tokenizer.ggml.pre"), "")
        restore_pre_tokenizer(found, pre_tokenizer)
        return found

    @cached_property
    def skeleton(self) -> PreTrainedModel:
        """Module of the file on the meta device, without weights."""
        with quietly(self.path):
            return open_skeleton(self.config)

    def module(self) -> PreTrainedModel:
        """Load a new module in float32 with the weights of the file.

        Raises:
            ModelError: transformers cannot build it, or makes another model of the file than llama.cpp.
        """
        with quietly(self.path), no_init_weights():
            filled = made(self.config, dtype=torch.float32)
        filled.tie_weights()
        require_same_tensors(self.source, filled)
        rows = GgufRows(self.source, filled)
        for name, weight in weights_of(filled).items():
            fill_parameter(name, weight, rows.rows)
        return filled

    @property
    def settings(self) -> Mapping[str, str]:
        """Settings besides the weights that change the output, by name."""
        return self.source.settings


#: an opened model, of either kind
Checkpoint = FolderCheckpoint | GgufCheckpoint


def open_checkpoint(name: str) -> Checkpoint:
    """Open the model called `name`; returns the same object as before if none of its files has changed since.

    Raises:
        ModelError: there is no such model, it cannot be read, or its parts are inconsistent.
    """
    model, way = split_name(name)
    path = located(model)
    files = [*(sorted(path.iterdir()) if path.is_dir() else named_parts(path)), *(named_parts(Path(way)) if way else [])]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    stamps = tuple((file, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns) for file, about in stats)
    return _opened(name, path.absolute(), path, stamps, way)


@lru_cache(maxsize=_KEPT_OPEN)
def _opened(name: str, place: Path, path: Path, stamps: tuple[tuple[str, int, int, int, int], ...], way: str) -> Checkpoint:  # noqa: ARG001
    """Open a model; `place` and `stamps` are the cache key of one version of its files."""
    if not path.is_dir():
        return GgufCheckpoint(name, path, GgufSource(path))
    config = configuration(path)
    with quietly(path):
        skeleton = open_skeleton(config)
    config_json = read_configuration(path)
    return FolderCheckpoint(name, path, config, config_json, skeleton, Shards(path, quantization_of_model(config_json, path), skeleton), way)


def open_skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """Build the module of a configuration on the meta device: shapes without weights."""
    with torch.device("meta"):
        return made(config)


def made(config: PreTrainedConfig, **settings: Any) -> PreTrainedModel:
    """Build the module of a configuration: the causal language model, or what holds one together with other parts.

    Raises:
        ModelError: transformers has no such class for it.
    """
    module: PreTrainedModel = auto_class(config).from_config(copy.deepcopy(config), **settings, **NO_CODE)
    return module
