"""Weights of a Hugging Face folder, read lazily from its shards.

transformers 5 fuses the experts of a block into one 3-D parameter, with gate stacked on up; most checkpoints store every matrix of every expert as a
tensor of its own, under one of three naming schemes. Both layouts are supported.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor as Torch

from bitwright.compress.models.checkpoints.checkpoint_shards import INDEX, WHOLE, weight_map
from bitwright.compress.models.checkpoints.float8_blocks import FLOAT8, SCALE, block_of, scaled_rows
from bitwright.compress.models.checkpoints.safetensors_file import StoredTensor, entries
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.errors import ModelError

_COMPUTED = (r"rotary_emb\.inv_freq$",)  # old checkpoints store buffers that are computed from the configuration
_ROWS_AT_ONCE = 4096
MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


class Shards:
    """Tensors of a folder by their names on disk; only headers are held in memory."""

    def __init__(self, folder: Path, quantization: Mapping[str, Any]) -> None:
        """Read the index and the header of every shard. `quantization` is the `quantization_config` of the folder's configuration.

        Raises:
            ModelError: there are no weights, a shard of the index is missing or truncated, or the index does not match the shards.
        """
        self.folder, self._block = folder, block_of(quantization)
        self._entries = tensors_in(folder)

    @property
    def dtypes(self) -> frozenset[str]:
        """Dtypes on disk of the tensors with two or more dimensions."""
        return frozenset(entry.dtype for entry in self._entries.values() if len(entry.shape) > 1)

    def require(self, pieces: Mapping[str, tuple[ParameterSlice, ...]], parameters: Mapping[str, Torch]) -> None:
        """Require rows for every one of a module's `parameters`, in the right shape.

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

    def require_read(self, pieces: Mapping[str, tuple[ParameterSlice, ...]], *, tied: Mapping[str, str], ignored: Iterable[str]) -> None:
        """Require that every tensor in the folder is used: an unused one means that another model was saved than the one that is measured.

        `tied` maps each parameter that the configuration ties to another to that one's name. `ignored` are regular expressions of unused names that
        the architecture allows.

        Raises:
            ModelError: a tensor is unused, or a tensor of `tied` differs from the one it is tied to.
        """
        read = {self._found(piece)[0] for of_tensor in pieces.values() for piece in of_tensor}
        if self._block != (0, 0):
            read |= {name + SCALE for name in read if self._entries[name].dtype == FLOAT8}
        patterns = [re.compile(pattern) for pattern in (*ignored, *_COMPUTED)]
        left = [name for name in self._entries if name not in read and not any(pattern.search(name) for pattern in patterns)]
        for name in left:
            if name in tied:
                self._require_tied(name, tied[name])
        unread = sorted(name for name in left if name not in tied)
        if unread:
            raise ModelError(
                f"Every tensor of a model must be read; in {self.folder} nothing reads {', '.join(unread[:2])} ({len(unread)} such), so what is "
                "computed would be another model: give the model whose configuration names them, or one whose weights are plain floats."
            )

    def _require_tied(self, name: str, owner: str) -> None:
        tied, read = self._entries[name], self._entries.get(owner) or self._entries.get(owner.removeprefix("model."))
        if read is None or tied.shape != read.shape or not _equal(tied, read):
            raise ModelError(
                f"The configuration and the weights of a model must agree; config.json of {self.folder} ties {name} to {owner} "
                f"(tie_word_embeddings), and {tied.path.name} holds another {name}: set tie_word_embeddings to false, or remove that tensor."
            )

    def rows(self, piece: ParameterSlice) -> Torch:
        """Read the rows of a parameter slice in engine order, `(n_rows, n_columns)` float32; a vector is a column.

        Raises:
            ModelError: the rows are missing, are not floats, or cannot be read.
        """
        name, start = self._found(piece)
        rows = self._rows(name, start, start + piece.stop - piece.start)
        return rows if piece.is_plain else rows[torch.from_numpy(piece.order() - piece.start)]

    def _rows(self, name: str, start: int, stop: int) -> Torch:
        entry = self._entries[name]
        if entry.dtype != FLOAT8 or self._block == (0, 0) or len(entry.shape) != 2:
            return entry.rows(start, stop)
        if name + SCALE not in self._entries:
            raise ModelError(f"Weights in 8-bit floats must have their scales; {self.folder} has no {name}{SCALE}: download the model again.")
        return scaled_rows(entry, self._entries[name + SCALE], start, stop, block=self._block)

    def _holds(self, piece: ParameterSlice, parameter: Torch) -> bool:
        try:
            name, start = self._found(piece)
        except ModelError:
            return False
        entry = self._entries[name]
        if entry.shape == tuple(parameter.shape):
            return True
        return piece.expert >= 0 and start == 0 and entry.shape == (piece.n_rows, parameter.shape[-1])

    def _found(self, piece: ParameterSlice) -> tuple[str, int]:
        """Return the name of the tensor that holds the slice, and the row of the tensor (leading dimensions folded) at which it begins."""
        for name in _names(piece):
            if name in self._entries:
                entry = self._entries[name]
                stacked = piece.expert >= 0 and len(entry.shape) == 3
                apart = piece.expert >= 0 and not stacked
                return name, piece.expert * entry.shape[1] + piece.start if stacked else 0 if apart else piece.start
        raise ModelError(f"A model folder must hold every weight; {self.folder} has no {piece.parameter}: download or save the model again.")


def _names(piece: ParameterSlice) -> Iterator[str]:
    """Yield the names under which checkpoints store a parameter, the module's own first."""
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


def tensors_in(folder: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a folder by name, from the headers of its shards.

    Raises:
        ModelError: see `shards`; a tensor is in another shard than the index says, or in two.
    """
    found: dict[str, StoredTensor] = {}
    for path in shards(folder):
        for name, entry in entries(path).items():
            if name in found:
                both = f"{found[name].path.name} and in {path.name}"
                raise ModelError(f"A tensor must lie in one shard; {name} lies in {both} of {folder}: download or save the model again.")
            found[name] = entry
    said = weight_map(folder)
    for name in sorted({*said, *found}) if said else ():
        place = found[name].path.name if name in found else "no shard"
        if said.get(name) != place:
            raise ModelError(
                f"The index of a model and its shards must agree; {name} lies in {place} of {folder}, and {INDEX} says "
                f"{said.get(name, 'nothing of it')}: download or save the model again."
            )
    return found


def shards(folder: Path) -> list[Path]:
    """List the files that hold the weights of a folder.

    Raises:
        ModelError: there are none, the index cannot be read, a shard of it is missing, or the folder holds a second set of weights.
    """
    names = sorted(set(weight_map(folder).values()))
    if not names:
        if not (folder / WHOLE).is_file():
            raise ModelError(
                f"A model folder must hold its weights as {WHOLE} or as shards with {INDEX}; {folder} does not: save them as safetensors, since a "
                "pickle can run code."
            )
        return [folder / WHOLE]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"A model folder must hold every shard that its index names; {folder} lacks {len(missing)} of {len(names)}, first {missing[0]}: "
            "download the rest."
        )
    if WHOLE not in names and (folder / WHOLE).is_file():
        raise ModelError(
            f"A model folder must hold one set of weights; {folder} holds {WHOLE} and, by {INDEX}, {names[0]}: remove "
            "one of the two, whichever is older."
        )
    return [folder / name for name in names]


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    """Return whether two tensors of the same shape hold the same weights, compared in chunks of rows."""
    n_rows = one.shape[0] if one.shape else 1
    return all(
        torch.equal(one.rows(start, min(start + _ROWS_AT_ONCE, n_rows)), other.rows(start, min(start + _ROWS_AT_ONCE, n_rows)))
        for start in range(0, n_rows, _ROWS_AT_ONCE)
    )
