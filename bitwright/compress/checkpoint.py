"""The weights of a Hugging Face folder, read from its shards when they are asked for.

transformers 5 keeps the experts of a block in one 3-D parameter, with gate and up above each other; most checkpoints hold every matrix of every
expert apart, under names of three kinds. Both are found here, and a parameter's rows are read from wherever they lie.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor as Torch

from bitwright.compress.float8_blocks import FLOAT8, SCALE, block_of, scaled_rows
from bitwright.compress.hub import quantization_of
from bitwright.compress.pieces import Piece
from bitwright.compress.safetensors_file import Entry, entries
from bitwright.errors import ModelError

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


class Checkpoint:
    """The tensors of a folder under the names of its files; nothing but headers is held in memory."""

    def __init__(self, folder: Path) -> None:
        """Read the index and the head of every shard.

        Raises:
            ModelError: no weights, a shard that the index names and the folder lacks, or one that is not whole.
        """
        self.folder, self._block = folder, block_of(quantization_of(folder))
        self._entries: dict[str, Entry] = {}
        for path in shards(folder):
            self._entries |= entries(path)

    @property
    def dtypes(self) -> frozenset[str]:
        """The types that its tensors of two dimensions and more have on disk."""
        return frozenset(entry.dtype for entry in self._entries.values() if len(entry.shape) > 1)

    def require(self, pieces: Mapping[str, tuple[Piece, ...]], parameters: Mapping[str, Torch]) -> None:
        """Refuse a folder that lacks rows of a module's `parameters`, or has them in another shape.

        Raises:
            ModelError: see above.
        """
        wrong = sorted(
            {piece.parameter for of_tensor in pieces.values() for piece in of_tensor if not self._holds(piece, parameters[piece.parameter])}
        )
        if wrong:
            raise ModelError(
                f"A model folder must hold every weight in the shape that its configuration says; {self.folder} does not for "
                f"{', '.join(wrong[:3])}: download or save the model again."
            )

    def rows(self, piece: Piece) -> Torch:
        """The rows of a piece in engine order `(n_rows, n_columns)`, float32; a vector is a column.

        Raises:
            ModelError: they are missing, are no floats, or cannot be read.
        """
        name, start = self._found(piece)
        rows = self._rows(name, start, start + piece.n_rows)
        return rows[torch.from_numpy(piece.order() - piece.start)] if piece.rotary_heads else rows

    def _rows(self, name: str, start: int, stop: int) -> Torch:
        entry = self._entries[name]
        if entry.dtype != FLOAT8 or self._block == (0, 0):
            return entry.rows(start, stop)
        if name + SCALE not in self._entries:
            raise ModelError(f"Weights in 8-bit floats must have their scales; {self.folder} has no {name}{SCALE}: download the model again.")
        return scaled_rows(entry, self._entries[name + SCALE], start, stop, block=self._block)

    def _holds(self, piece: Piece, parameter: Torch) -> bool:
        try:
            name, start = self._found(piece)
        except ModelError:
            return False
        entry = self._entries[name]
        if entry.shape == tuple(parameter.shape):
            return True
        return piece.expert >= 0 and start == 0 and entry.shape == (piece.n_rows, parameter.shape[-1])

    def _found(self, piece: Piece) -> tuple[str, int]:
        """The name of the tensor in which the piece lies, and the row of the (folded) tensor at which it begins."""
        for name in _names(piece):
            if name in self._entries:
                entry = self._entries[name]
                stacked = piece.expert >= 0 and len(entry.shape) == 3
                apart = piece.expert >= 0 and not stacked
                return name, piece.expert * entry.shape[1] + piece.start if stacked else 0 if apart else piece.start
        raise ModelError(f"A model folder must hold every weight; {self.folder} has no {piece.parameter}: download or save the model again.")


def _names(piece: Piece) -> Iterator[str]:
    """The names under which checkpoints keep a parameter, the module's own first."""
    whole = [piece.parameter]
    if piece.expert >= 0:
        stem, _, role = piece.parameter.rpartition(".")  # model.layers.3.mlp.experts, gate_up_proj
        if role == "gate_up_proj":
            role = "up_proj" if piece.start else "gate_proj"
        whole += [f"{stem}.{piece.expert}.{role}.weight", f"{stem}.{piece.expert}.{MIXTRAL.get(role, role)}.weight"]
    for name in whole:
        yield name
        yield name.replace(".mlp.", ".block_sparse_moe.")
        yield name.removeprefix("model.")


def shards(folder: Path) -> list[Path]:
    """The files that hold the weights of a folder.

    Raises:
        ModelError: there are none, the index cannot be read, or a shard that it names is missing.
    """
    index = folder / INDEX
    if not index.is_file():
        if not (folder / WHOLE).is_file():
            raise ModelError(
                f"A model folder must hold its weights as {WHOLE} or as shards with {INDEX}; {folder} does not: save them as safetensors, since a "
                "pickle can run code."
            )
        return [folder / WHOLE]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"The index of a model's shards must be readable; {index} is not ({error}): download or save the model again.") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"A model folder must hold every shard that its index names; {folder} lacks {len(missing)} of {len(names)}, first {missing[0]}: "
            "download the rest."
        )
    return [folder / name for name in names]
