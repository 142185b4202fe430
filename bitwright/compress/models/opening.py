"""One opening of a model: its configuration, index, tokenizer and tensors, read once and asked by everything that works with the model.

`load`, `open_source` and `open_home` all begin here, so they cannot mean two models. What disagrees within a model (its index and its shards, its
configuration and its weights, tensors that nothing reads) is told here, before anything is measured.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from bitwright.compress.models.architectures import lay_out, recognise, weights_of
from bitwright.compress.models.checkpoints.checkpoint import Shards
from bitwright.compress.models.checkpoints.configuration_file import quantization_in, read_configuration
from bitwright.compress.models.checkpoints.hugging_face import HuggingFaceSource
from bitwright.compress.models.gguf.gguf_tokenizer import restore_pre_tokenizer
from bitwright.compress.models.gguf.reader import GgufSource
from bitwright.compress.models.hub import NO_CODE, configuration, located, quietly, read_tokenizer
from bitwright.compress.models.model_settings import settings_of_folder
from bitwright.compress.models.tensor_layout import Piece

_KEPT_OPEN = 4  # models; one run needs one


@dataclass(frozen=True, eq=False)
class FolderCheckpoint:
    """A folder as transformers saves it; nothing of it changes.

    `name` is what the user called it, `said` its `config.json` and `config` what transformers reads there, `skeleton` the module that it describes,
    without weights, `pieces` where the engine's tensors lie in that, and `shards` the weights.
    """

    name: str
    path: Path
    config: PreTrainedConfig
    said: Mapping[str, Any]
    skeleton: PreTrainedModel
    pieces: Mapping[str, tuple[Piece, ...]]
    shards: Shards

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the folder.

        Raises:
            ModelError: it cannot be loaded.
        """
        return read_tokenizer(self.path, config=self.config)

    @cached_property
    def source(self) -> HuggingFaceSource:
        """The engine's tensors, read from the files when they are asked for.

        Raises:
            ModelError: the tokenizer is not supported, or a weight cannot be read.
        """
        settings = settings_of_folder(self.said, self.path)
        return HuggingFaceSource(self.name, self.skeleton, self.shards.rows, tokenizer=self.tokenizer, folder=self.path, settings=settings)

    @torch.no_grad()
    def module(self) -> PreTrainedModel:
        """A new module in float32 with the weights of the folder."""
        with quietly(self.path), no_init_weights():
            built: Any = AutoModelForCausalLM.from_config(copy.deepcopy(self.config), dtype=torch.float32, **NO_CODE)  # type: ignore[no-untyped-call]
        filled: PreTrainedModel = built
        filled.tie_weights()
        weights = weights_of(filled)
        for piece in (piece for pieces in self.pieces.values() for piece in pieces):
            parameter, rows = weights[piece.parameter], self.shards.rows(piece)
            piece.from_engine(parameter, rows[:, 0] if parameter.dim() == 1 else rows)
        return filled


@dataclass(frozen=True, eq=False)
class GgufCheckpoint:
    """A GGUF file, whose configuration and tokenizer are what transformers makes of its metadata."""

    name: str
    path: Path
    source: GgufSource

    @cached_property
    def config(self) -> PreTrainedConfig:
        """What transformers makes of the metadata.

        Raises:
            ModelError: it knows no such architecture.
        """
        with quietly(self.path):
            found: PreTrainedConfig = AutoConfig.from_pretrained(**self._where)
        return found

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the file, which splits text as llama.cpp does.

        Raises:
            ModelError: it cannot be loaded.
        """
        found = read_tokenizer(self.path.parent, gguf_file=self.path.name)
        said = next((str(entry.value) for entry in self.source.metadata if entry.key == "tokenizer.ggml.pre"), "")
        restore_pre_tokenizer(found, said)
        return found

    @cached_property
    def skeleton(self) -> PreTrainedModel:
        """The module that the file describes, without weights."""
        with quietly(self.path):
            return open_skeleton(self.config)

    def module(self) -> PreTrainedModel:
        """A new module in float32 with the weights that transformers finds in the file.

        Raises:
            ModelError: it cannot load them.
        """
        with quietly(self.path):
            found: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                **self._where, config=copy.deepcopy(self.config), dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
            )
        return found

    @property
    def _where(self) -> dict[str, Any]:
        return {"pretrained_model_name_or_path": str(self.path.parent), "gguf_file": self.path.name, **NO_CODE}


#: a model as it lies on disk, opened
Checkpoint = FolderCheckpoint | GgufCheckpoint


def open_checkpoint(name: str) -> Checkpoint:
    """Open what a user calls a model; the same object as before where none of its files was touched since.

    Raises:
        ModelError: no such model, not one that can be read, or one whose parts disagree.
    """
    path = located(name)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    stamps = tuple((file.name, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns) for file in files for about in (file.stat(),))
    return _opened(name, path.absolute(), path, stamps)


@lru_cache(maxsize=_KEPT_OPEN)
def _opened(name: str, place: Path, path: Path, stamps: tuple[tuple[str, int, int, int, int], ...]) -> Checkpoint:  # noqa: ARG001
    """Open the model; `place` and `stamps` tell one version of its files from the next."""
    if not path.is_dir():
        return GgufCheckpoint(name, path, GgufSource(path))
    config = configuration(path)
    with quietly(path):
        skeleton = open_skeleton(config)
    said = read_configuration(path)
    found, pieces = Shards(path, quantization_in(said, path)), lay_out(skeleton, recognise(config).name)
    found.require(pieces, weights_of(skeleton))
    found.require_read(pieces, tied=_tied(skeleton), ignored=skeleton._keys_to_ignore_on_load_unexpected or ())
    return FolderCheckpoint(name, path, config, said, skeleton, pieces, found)


def open_skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """The module that a configuration describes, on the meta device: shapes without weights."""
    with torch.device("meta"):
        module: Any = AutoModelForCausalLM.from_config(copy.deepcopy(config), **NO_CODE)  # type: ignore[no-untyped-call]
    skeleton: PreTrainedModel = module
    return skeleton


def _tied(skeleton: PreTrainedModel) -> dict[str, str]:
    """The parameters that are another one's by the configuration: name → that one's name."""
    owners = {id(parameter): name for name, parameter in skeleton.named_parameters()}
    everything = skeleton.named_parameters(remove_duplicate=False)
    return {name: owners[id(parameter)] for name, parameter in everything if owners[id(parameter)] != name}
