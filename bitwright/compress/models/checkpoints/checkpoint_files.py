"""Configuration and tokenizer files of a checkpoint, and the name on disk of every weight.

transformers 5 fuses the experts of a block into one parameter; most checkpoints store them one by one, some under names of their own
(`conversions.py`). The names here are those that transformers saves and loads, or those of the module itself for a loader of our own.
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from bitwright.compress.models.checkpoints.configuration_file import CONFIG
from bitwright.compress.models.checkpoints.conversions import Outgoing
from bitwright.compress.models.checkpoints.fewer_blocks import BlockSettings, block_settings, renumbered
from bitwright.compress.models.checkpoints.fewer_experts import of_fewer_experts, slices_of_experts
from bitwright.compress.models.checkpoints.quantized.quantization import without_quantization
from bitwright.compress.models.cut_source import cut_pieces, cut_tensors
from bitwright.compress.models.hub import WORDS, quietly
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.modules.module_tensors import module_tensors
from bitwright.compress.models.modules.module_view import LINEAR_VIEW, ModuleView
from bitwright.compress.models.modules.recast_buffers import recast_buffers
from bitwright.compress.models.opening import FolderCheckpoint, GgufCheckpoint, open_checkpoint
from bitwright.compress.models.ordered_source import attention_paths
from bitwright.compress.models.routers import is_of_experts
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import Cut, Tensor, discover, expert_of


@dataclass(frozen=True)
class CheckpointEntry:
    """Tensor of a checkpoint: rows `start:stop` of the target's `tensor`, which are the slice `piece` of a module's parameter.

    `name` is the tensor's name on disk, `shape` its shape there, of which a matrix is `(n_rows, n_columns)`.
    """

    tensor: Tensor
    start: int
    stop: int
    piece: ParameterSlice
    name: str
    shape: tuple[int, ...]

    @property
    def layer(self) -> str:
        """Name of the layer that the weight belongs to."""
        return self.name.removesuffix(".weight")

    @property
    def matrix(self) -> tuple[int, int]:
        """Shape of the matrix, `(n_rows, n_columns)`.

        Raises:
            ValueError: the tensor is a vector.
        """
        n_rows, n_columns = self.shape
        return n_rows, n_columns


class NamesOnDisk(ABC):
    """Names of the tensors of a checkpoint."""

    @abstractmethod
    def name(self, tensor: Tensor, piece: ParameterSlice, part: int) -> str:
        """Return the name of the slice `piece` of a parameter, which is one of the `tensor`; `part` is its place among those of the same expert."""


class OwnNames(NamesOnDisk):
    """Names of the module, under which a loader of our own reads them."""

    def name(self, tensor: Tensor, piece: ParameterSlice, part: int) -> str:  # noqa: ARG002
        """Return the name on disk of the rows of `tensor` that `piece` is."""
        return tensor.name


class SavedNames(NamesOnDisk):
    """Names under which transformers saves and loads; a matrix that can be packed has the module's own, by which its format is looked up."""

    def __init__(self, module: PreTrainedModel) -> None:
        self._outgoing = Outgoing(module)

    def name(self, tensor: Tensor, piece: ParameterSlice, part: int) -> str:
        """Return the name on disk of the rows of `tensor` that `piece` is."""
        patterns = self._outgoing.experts(piece.parameter) if piece.expert >= 0 else ()
        if patterns:
            return self._outgoing.of_expert(patterns[part], piece.expert)
        return piece.parameter if discover([tensor]) else self._outgoing.whole(piece.parameter)


@dataclass(frozen=True)
class CheckpointFiles:
    """Config and tokenizer files of a model, and the name of every weight in its checkpoint.

    `config` is the original `config.json` without its `quantization_config`, `files` the other files by name, `pieces` the parameter slices of the
    target's `tensors`, and `shapes` those of the module's parameters by name. `absent` are the modules that were taken away, by name. `blocks` are
    the settings of `config` that depend on the blocks, and `dtype` is the type in which the packed model must be loaded, empty where any will do.
    """

    config: Mapping[str, Any]
    files: Mapping[str, bytes]
    pieces: Mapping[str, tuple[ParameterSlice, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    tensors: tuple[Tensor, ...]
    names: NamesOnDisk
    blocks: BlockSettings
    dtype: str = ""
    absent: tuple[str, ...] = ()

    def cut_by(self, cut: Cut) -> "CheckpointFiles":
        """Return these files for a target that cuts the tensors of the module."""
        return replace(self, pieces=cut_pieces(self.pieces, self.tensors, cut), tensors=cut_tensors(self.tensors, cut))

    def without(self, gone: Collection[int]) -> "CheckpointFiles":
        """Return the files of the model without the blocks that are `gone`, the others numbered anew.

        Raises:
            ModelError: what the configuration says of its blocks is not known.
        """
        if not gone:
            return self

        def kept(names: Iterable[str]) -> dict[str, str]:
            return {name: new for name, new in ((name, renumbered(name, gone)) for name in names) if new}

        pieces = {
            new: tuple(replace(piece, parameter=renumbered(piece.parameter, gone)) for piece in self.pieces[name])
            for name, new in kept(self.pieces).items()
        }
        shapes = {new: self.shapes[name] for name, new in kept(self.shapes).items()}
        tensors = tuple(replace(tensor, name=new) for tensor in self.tensors if (new := renumbered(tensor.name, gone)))
        absent = tuple(kept(self.absent).values())
        return replace(self, config=self.blocks.shortened(self.config, gone), pieces=pieces, shapes=shapes, tensors=tensors, absent=absent)

    def without_attention(self, blocks: Collection[int]) -> "CheckpointFiles":
        """Return the files of the model without the attention of some `blocks`."""
        absent = tuple(path for layer, path in attention_paths(self.tensors).items() if layer in blocks)
        tensors = tuple(tensor for tensor in self.tensors if not tensor.name.startswith(tuple(f"{path}." for path in absent)))
        return replace(self, tensors=tensors, absent=absent)

    def with_experts(self, experts: Sequence[Sequence[int]]) -> "CheckpointFiles":
        """Return the files of the model of which only these routed `experts` are kept of each block, as many of each that is left; all where there
        are none.

        Raises:
            ModelError: the configuration does not say how many there are under a known name.
        """
        n_before = next((tensor.shape[0] for tensor in self.tensors if is_of_experts(tensor)), 0)
        n_after = max((len(kept) for kept in experts), default=n_before)
        if n_after == n_before:
            return self
        of = {tensor.name: experts[expert_of(tensor.name)[0]] for tensor in self.tensors if is_of_experts(tensor)}
        pieces = {name: slices_of_experts(found, of[name]) if name in of else found for name, found in self.pieces.items()}
        tensors = tuple(replace(tensor, shape=(n_after, *tensor.shape[1:])) if tensor.name in of else tensor for tensor in self.tensors)
        return replace(self, config=of_fewer_experts(self.config, n_before, n_after), pieces=pieces, tensors=tensors)

    def checkpoint_entries(self, tensors: tuple[Tensor, ...]) -> Iterator[CheckpointEntry]:
        """Yield the checkpoint entries of `tensors`, in their order."""
        for tensor in tensors:
            start = 0
            for piece in self.pieces[tensor.name]:
                name = self.names.name(tensor, piece, piece.start // piece.n_rows if piece.expert >= 0 else 0)
                is_matrix = piece.expert >= 0 or len(tensor.shape) > 1
                shape = (piece.n_rows, tensor.shape[-1]) if is_matrix else self.shapes[piece.parameter]
                yield CheckpointEntry(tensor, start, start + piece.n_rows, piece, name, shape)
                start += piece.n_rows


def open_checkpoint_files(name: str, view: ModuleView = LINEAR_VIEW) -> CheckpointFiles:
    """Open the config and tokenizer files of the model called `name`, without reading its weights, with its tensors as `view` has them: where a
    loader of linear layers must unpack them, they have the names that transformers saves, else those of the module.

    Raises:
        ModelError: there is no such model, or it cannot be read.
    """
    checkpoint = open_checkpoint(name)
    config, files = _of_folder(checkpoint) if isinstance(checkpoint, FolderCheckpoint) else _of_gguf(checkpoint)
    module = checkpoint.skeleton
    tensors, pieces = module_tensors(module, apart=view.apart)
    shapes = {name: tuple(weight.shape) for name, weight in weights_of(module).items()}
    blocks = block_settings(module.config)
    if not view.apart:
        return CheckpointFiles(config, files, pieces, shapes, tensors, OwnNames(), blocks)
    return CheckpointFiles(config, files, pieces, shapes, tensors, SavedNames(module), blocks, "float32" if recast_buffers(module) else "")


def _of_folder(checkpoint: FolderCheckpoint) -> tuple[Mapping[str, Any], Mapping[str, bytes]]:
    words = {name: (checkpoint.path / name).read_bytes() for name in sorted(WORDS) if name != CONFIG and (checkpoint.path / name).is_file()}
    return {"dtype" if key == "torch_dtype" else key: value for key, value in without_quantization(checkpoint.config_json).items()}, words


def _of_gguf(checkpoint: GgufCheckpoint) -> tuple[Mapping[str, Any], Mapping[str, bytes]]:
    module, tokenizer = checkpoint.skeleton, checkpoint.tokenizer
    with quietly(checkpoint.path), tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
        tokenizer.save_pretrained(folder)
        words = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    return checkpoint.config.to_dict() | {"architectures": [type(module).__name__]}, words
