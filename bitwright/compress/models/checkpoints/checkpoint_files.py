"""Configuration and tokenizer files of a checkpoint, and the name on disk of every weight.

transformers 5 fuses the experts of a block into one parameter; checkpoints store them one by one, Mixtral's under names of its own, and the loader
maps one to the other (`conversion_mapping`). The names here are those on disk.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from bitwright.compress.models.architectures import architecture_of, engine_shape, lay_out, weights_of
from bitwright.compress.models.checkpoints.checkpoint import MIXTRAL
from bitwright.compress.models.checkpoints.configuration_file import CONFIG
from bitwright.compress.models.cut_source import cut_pieces, cut_tensors
from bitwright.compress.models.hub import WORDS, quietly
from bitwright.compress.models.opening import FolderCheckpoint, GgufCheckpoint, open_checkpoint
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import Cut, Tensor, part_of

_DENSE, _SPARSE, _GATE = ".mlp.", ".block_sparse_moe.", "ffn_gate"


@dataclass(frozen=True)
class CheckpointEntry:
    """Tensor of a checkpoint: rows `start:stop` of the engine's `tensor`, which are the slice `piece` of a module's parameter.

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


@dataclass(frozen=True)
class CheckpointFiles:
    """Config and tokenizer files of a model, and the name of every weight in its checkpoint.

    `config` is the original `config.json`, `files` the other files by name, `pieces` the parameter slices of the target's `tensors`, and `shapes`
    those of the module's parameters by name.
    """

    config: Mapping[str, Any]
    files: Mapping[str, bytes]
    pieces: Mapping[str, tuple[ParameterSlice, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    tensors: tuple[Tensor, ...]

    def cut_by(self, cut: Cut) -> "CheckpointFiles":
        """Return these files for a target that cuts the tensors of the engine."""
        return replace(self, pieces=cut_pieces(self.pieces, self.tensors, cut), tensors=cut_tensors(self.tensors, cut))

    def checkpoint_entries(self, tensors: tuple[Tensor, ...]) -> Iterator[CheckpointEntry]:
        """Yield the checkpoint entries of `tensors`, in their order; a tensor that transformers computes itself has none."""
        for tensor in tensors:
            start = 0
            for piece in self.pieces.get(tensor.name, ()):
                yield CheckpointEntry(tensor, start, start + piece.n_rows, piece, self._name(tensor, piece), self._shape(tensor, piece))
                start += piece.n_rows

    def _shape(self, tensor: Tensor, piece: ParameterSlice) -> tuple[int, ...]:
        whole = self.shapes[piece.parameter]
        if part_of(tensor.name) >= 0:
            return tensor.shape
        return whole if piece.expert < 0 else (piece.n_rows, whole[-1])

    def _name(self, tensor: Tensor, piece: ParameterSlice) -> str:
        mixtral = self.config["model_type"] == "mixtral"
        name = piece.parameter
        if piece.expert >= 0:
            stem, _, role = piece.parameter.rpartition(".")
            if role == "gate_up_proj":
                role = "gate_proj" if _GATE in tensor.name else "up_proj"
            name = f"{stem}.{piece.expert}.{MIXTRAL[role] if mixtral else role}.weight"
        part = part_of(tensor.name)
        if part >= 0:
            stem, role, last = name.rsplit(".", 2)
            name = f"{stem}.part{part}.{role}.{last}"
        return name.replace(_DENSE, _SPARSE) if mixtral else name


def open_checkpoint_files(name: str) -> CheckpointFiles:
    """Open the config and tokenizer files of the model called `name`, without reading its weights.

    Raises:
        ModelError: there is no such model, or it cannot be read.
    """
    checkpoint = open_checkpoint(name)
    return _of_folder(checkpoint) if isinstance(checkpoint, FolderCheckpoint) else _of_gguf(checkpoint)


def _of_folder(checkpoint: FolderCheckpoint) -> CheckpointFiles:
    words = {name: (checkpoint.path / name).read_bytes() for name in sorted(WORDS) if name != CONFIG and (checkpoint.path / name).is_file()}
    config = {"dtype" if key == "torch_dtype" else key: value for key, value in checkpoint.config_json.items()}
    return _home(config, words, checkpoint.skeleton)


def _of_gguf(checkpoint: GgufCheckpoint) -> CheckpointFiles:
    module, tokenizer = checkpoint.skeleton, checkpoint.tokenizer
    with quietly(checkpoint.path), tempfile.TemporaryDirectory(prefix="bitwright-") as folder:
        tokenizer.save_pretrained(folder)
        words = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    return _home(checkpoint.config.to_dict() | {"architectures": [type(module).__name__]}, words, module)


def _home(config: Mapping[str, Any], words: Mapping[str, bytes], module: PreTrainedModel) -> CheckpointFiles:
    pieces, weights = lay_out(module, architecture_of(module.config).name), weights_of(module)
    tensors = (Tensor(name, engine_shape(of_tensor, weights[of_tensor[0].parameter]), "") for name, of_tensor in pieces.items())
    return CheckpointFiles(config, words, pieces, {name: tuple(weight.shape) for name, weight in weights.items()}, tuple(tensors))


def in_module_order(piece: ParameterSlice, rows: torch.Tensor) -> torch.Tensor:
    """Reorder rows `(n_rows, …)` from engine order to the order of the module and the checkpoint."""
    if piece.is_plain:
        return rows
    ordered = torch.empty_like(rows)
    ordered[torch.from_numpy(piece.order() - piece.start)] = rows
    return ordered
