"""Weights of a Hugging Face folder, read lazily from its shards.

Which tensors of the folder become which parameter of the module is asked of transformers' own mapping (`conversions.py`). Rows of a parameter that is
stored as it is, or expert by expert, are read alone; a parameter that is converted in another way is converted whole. What is quantized on disk is
read as the floats that it stands for (`quantized/`).
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor as Torch
from transformers import PreTrainedModel

from bitwright.compress.models.checkpoints.checkpoint_shards import INDEX, WHOLE, weight_map
from bitwright.compress.models.checkpoints.configuration_file import CONFIG, read_configuration
from bitwright.compress.models.checkpoints.conversions import Origin, origins
from bitwright.compress.models.checkpoints.quantized.packed_weight import PackedWeight
from bitwright.compress.models.checkpoints.quantized.quantization import NO_QUANTIZATION, Quantization, quantization_of_model
from bitwright.compress.models.checkpoints.safetensors_file import DTYPES, StoredTable, StoredTensor, entries
from bitwright.compress.models.module_state import tied_weights, weights_of
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.errors import ModelError

_COMPUTED = (r"rotary_emb\.inv_freq$", r"\.attn\.(masked_)?bias$", r"\.attention\.(masked_)?bias$")  # buffers that old checkpoints store
_ROWS_AT_ONCE = 4096
_BIAS, _WEIGHT = ".bias", ".weight"


class Shards:
    """Tensors of a folder by their names on disk, as the parameters of `skeleton`; only headers are held in memory."""

    def __init__(self, folder: Path, quantization: Quantization, skeleton: PreTrainedModel) -> None:
        """Read the index and the header of every shard.

        Raises:
            ModelError: there are no weights, a shard of the index is missing or truncated, the index does not match the shards, the tensors of a
                quantized weight do not fit each other, a parameter is missing or has another shape, a tensor is not read, or one that is tied differs
                from the one that it is tied to.
            LibraryError: the package that reads quantized weights is not installed.
        """
        self.folder, self._skeleton = folder, skeleton
        self._entries = quantization.read(tensors_in(folder))
        self.quantized = quantization.sentence(self._entries.values())
        self._shapes = {name: tuple(weight.shape) for name, weight in weights_of(skeleton).items()}
        self._origins = origins(skeleton, self._entries)
        self._entries |= _tables(skeleton, self._origins, self._entries)
        self._converted: dict[str, Torch] = {}  # what was converted last
        self._require()
        self._require_read()

    @property
    def dtypes(self) -> frozenset[str]:
        """Dtypes of the tensors with two or more dimensions, dequantized."""
        return _dtypes(self._entries)

    @property
    def narrow_type(self) -> str:
        """BF16 if every matrix is stored in that type and none is converted, else empty: then the weights themselves say what holds them."""
        converted = any(self._origins[name].converter is not None for name in self._shapes)
        return "BF16" if self.dtypes == {"BF16"} and not converted else ""

    def rows(self, piece: ParameterSlice) -> Torch:
        """Read the rows of a parameter slice in engine order, `(n_rows, n_columns)` float32; see `stored_rows`."""
        return self.stored_rows(piece).float()

    def stored_rows(self, piece: ParameterSlice) -> Torch:
        """Read the rows of a parameter slice in engine order, `(n_rows, n_columns)`, a vector as a column: in the type on disk where the parameter
        is stored as it is, or expert by expert, else float32.

        Raises:
            ModelError: the rows are not floats, or cannot be read.
        """
        origin = self._origins[piece.parameter]
        if piece.transposed:
            rows = self._slice(replace(piece, rows=range(self._shapes[piece.parameter][-2]), transposed=False), origin).mT[piece.start : piece.stop]
        else:
            rows = self._slice(piece, origin)
        return rows if piece.is_plain else rows[torch.from_numpy(piece.order() - piece.start)]

    def parameter(self, name: str) -> Torch:
        """Read a whole parameter, float32 in its shape.

        Raises:
            ModelError: it is not floats, or cannot be read.
        """
        shape, origin = self._shapes[name], self._origins[name]
        if origin.is_plain or origin.converter is not None:
            return self._whole(name, origin).reshape(shape)
        found = torch.empty(shape)
        for expert in range(shape[0]):
            found[expert] = self._expert(origin, expert, 0, shape[1])
        return found

    def _slice(self, piece: ParameterSlice, origin: Origin) -> Torch:
        shape = self._shapes[piece.parameter]
        if len(shape) == 3 and piece.expert >= 0 and not origin.is_plain and origin.converter is None:
            return self._expert(origin, piece.expert, piece.start, piece.stop)
        if origin.is_plain:
            first = piece.expert * shape[1] if piece.expert >= 0 else 0
            inner = 1 if piece.expert >= 0 else prod(shape[1:-1])  # leading dimensions are folded
            return self._entries[origin.parts[0][0]].stored_rows(first + piece.start * inner, first + piece.stop * inner)
        whole = piece.matrix(self.parameter(piece.parameter))[piece.start : piece.stop]
        return whole.reshape(-1, shape[-1] if len(shape) > 1 else 1)

    def _expert(self, origin: Origin, expert: int, start: int, stop: int) -> Torch:
        """Read rows of an expert's matrix, which lies on disk as one tensor or several of which each is stacked on the next."""
        found, begin = [], 0
        for names in origin.parts:
            n_rows = self._entries[names[expert]].shape[0]
            first, past = max(start - begin, 0), min(stop - begin, n_rows)
            if first < past:
                found.append(self._entries[names[expert]].stored_rows(first, past))
            begin += n_rows
        return torch.cat(found) if len(found) > 1 else found[0]

    def _whole(self, name: str, origin: Origin) -> Torch:
        if origin.converter is None:
            return self._tensor(origin.parts[0][0])
        if name not in self._converted:
            self._converted = origin.made({part: self._tensor(part) for parts in origin.parts for part in parts}, self._skeleton)
        return self._converted[name]

    def _tensor(self, name: str) -> Torch:
        shape = self._entries[name].shape
        return self._entries[name].rows(0, prod(shape[:-1]) if len(shape) > 1 else prod(shape)).reshape(shape)

    # --- what is required of a folder

    def _require(self) -> None:
        wrong = sorted(name for name, shape in self._shapes.items() if name not in self._origins or not self._fits(self._origins[name], shape))
        if wrong:
            raise ModelError(
                f"A model folder must hold every weight in the shape that its configuration says; {self.folder} does not for "
                f"{', '.join(wrong[:3])}: download or save the model again."
            )

    def _fits(self, origin: Origin, shape: tuple[int, ...]) -> bool:
        if origin.is_plain:
            return self._entries[origin.parts[0][0]].shape == shape
        if origin.converter is not None:
            return all(origin.parts)
        of_parts = [{self._entries[name].shape for name in names} for names in origin.parts]
        alone = [next(iter(shapes)) for shapes in of_parts if len(shapes) == 1]
        stacked = len(alone) == len(of_parts) and all(len(names) == shape[0] for names in origin.parts)
        return stacked and (sum(part[0] for part in alone), *alone[0][1:]) == shape[1:] and len({part[1:] for part in alone}) == 1

    def _require_read(self) -> None:
        """Require that every tensor in the folder is used: an unused one means that another model was saved than the one that is measured."""
        tied, ignored = tied_weights(self._skeleton), self._skeleton._keys_to_ignore_on_load_unexpected or ()
        patterns = [re.compile(pattern) for pattern in (*ignored, *_COMPUTED)]
        read = {name for target in self._shapes for names in self._origins[target].parts for name in names}
        unread = []
        for target, origin in self._origins.items():
            left = [name for names in origin.parts for name in names if name not in read]
            if target in tied and left:
                self._require_tied(left[0], self._origins[tied[target]], target, tied[target])
            else:
                unread += [name for name in left if not any(pattern.search(name) for pattern in patterns)]
        unread = sorted(name for name in unread if not self._is_zero_bias(name))
        if unread:
            raise ModelError(
                f"Every tensor of a model must be read; in {self.folder} nothing reads {', '.join(unread[:2])} ({len(unread)} such), so what is "
                "computed would be another model: give the model whose configuration names them, or one whose weights are plain floats."
            )

    def _is_zero_bias(self, name: str) -> bool:
        """Return whether a tensor is the bias of zeros that quantizers write for a layer that has none."""
        entry, weight = self._entries[name], name.removesuffix(_BIAS) + _WEIGHT
        is_bias = name.endswith(_BIAS) and isinstance(self._entries.get(weight), PackedWeight) and entry.dtype in DTYPES and len(entry.shape) == 1
        return is_bias and not bool(entry.rows(0, entry.shape[0]).any())

    def _require_tied(self, name: str, read: Origin, target: str, owner: str) -> None:
        tied = self._entries[name]
        if not read.is_plain or tied.shape != self._entries[read.parts[0][0]].shape or not _equal(tied, self._entries[read.parts[0][0]]):
            raise ModelError(
                f"The configuration and the weights of a model must agree; config.json of {self.folder} ties {target} to {owner} "
                f"(tie_word_embeddings), and {tied.path.name} holds another {name}: set tie_word_embeddings to false, or remove that tensor."
            )


def _tables(
    skeleton: PreTrainedModel, found: Mapping[str, Origin], stored: Mapping[str, StoredTensor | PackedWeight]
) -> dict[str, StoredTensor | PackedWeight]:
    """Return the tensors on disk that are tables of integers in the module, by name."""
    tables = [name for name, weight in weights_of(skeleton).items() if not weight.is_floating_point() and name in found]
    parts = {part: stored[part] for name in tables for names in found[name].parts for part in names}
    return {name: StoredTable(part.path, part.dtype, part.shape, part.start) for name, part in parts.items() if isinstance(part, StoredTensor)}


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


def dtypes_of(folder: Path) -> frozenset[str]:
    """Return the dtypes of the tensors of a folder with two or more dimensions, dequantized.

    Raises:
        ModelError: see `Shards`.
        LibraryError: the package that reads quantized weights is not installed.
    """
    quantization = quantization_of_model(read_configuration(folder), folder) if (folder / CONFIG).is_file() else NO_QUANTIZATION
    return _dtypes(quantization.read(tensors_in(folder)))


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


def _dtypes(read: Mapping[str, StoredTensor | PackedWeight]) -> frozenset[str]:
    return frozenset(entry.dtype for entry in read.values() if len(entry.shape) > 1)


def _equal(one: StoredTensor | PackedWeight, other: StoredTensor | PackedWeight) -> bool:
    """Return whether two tensors of the same shape hold the same weights, compared in chunks of rows."""
    n_rows = one.shape[0] if one.shape else 1
    return all(
        torch.equal(one.rows(start, min(start + _ROWS_AT_ONCE, n_rows)), other.rows(start, min(start + _ROWS_AT_ONCE, n_rows)))
        for start in range(0, n_rows, _ROWS_AT_ONCE)
    )
