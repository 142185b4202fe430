"""View of a model in which some tensors are cut into parts that are tensors of their own (`spaces/cut.py`); weights are not copied.

It is a view: the weights stay where they are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from bitwright.compress.models.float_types import FLOAT_TYPES
from bitwright.compress.models.source import Bytes, Floats, Source
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import Cut, Tensor, TensorPart, part_of


class CutSource(Source):
    """Source `whole` with its tensors cut; everything else, the fingerprint included, is that of `whole`."""

    def __init__(self, whole: Source, cut: Cut) -> None:
        self.name, self.architecture, self.metadata = whole.name, whole.architecture, whole.metadata
        self.fingerprint, self.settings = whole.fingerprint, whole.settings
        self.whole, self._of = whole, {part.tensor.name: (tensor, part) for tensor in whole.tensors for part in cut(tensor)}
        self.tensors = cut_tensors(whole.tensors, cut)

    @property
    def context_length(self) -> int:
        """Context length that the model was made for, in tokens; 0 where it is not known."""
        return self.whole.context_length

    @property
    def n_experts_used(self) -> int:
        """Number of routed experts that a token uses."""
        return self.whole.n_experts_used

    def read(self, tensor: Tensor) -> Floats:
        """Read a tensor, or the part of one that it was cut into, as float32 `(n_rows, n_columns)`."""
        if tensor.name not in self._of:
            return self.whole.read(tensor)
        stack, part = self._of[tensor.name]
        weights = self.whole.read(stack) if part.expert < 0 else self.whole.part(stack, part.expert)
        return np.ascontiguousarray(weights[slice(*part.rows), slice(*part.columns)])

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the stored bytes `(n_bytes,)` of a tensor, or of the part that it was cut into.

        Raises:
            ValueError: the tensor is a range of columns of a matrix that is not stored as floats.
        """
        if tensor.name not in self._of:
            return self.whole.stored(tensor)
        stack, part = self._of[tensor.name]
        packed = self.whole.stored(stack) if part.expert < 0 else self.whole.stored_part(stack, part.expert)
        if part_of(tensor.name) < 0:
            return packed
        if tensor.stored not in FLOAT_TYPES:
            raise ValueError(f"{tensor.name} is a part of a matrix stored in {tensor.stored}: only the whole matrix can be read as stored")
        of_matrix = packed.reshape(-1, stack.shape[-1], FLOAT_TYPES[tensor.stored].itemsize)
        return np.ascontiguousarray(of_matrix[slice(*part.rows), slice(*part.columns)]).reshape(-1)


def cut_tensors(tensors: Iterable[Tensor], cut: Cut) -> tuple[Tensor, ...]:
    """Return the tensors in order, each cut one replaced by its parts."""
    return tuple(part for tensor in tensors for part in [one.tensor for one in cut(tensor)] or [tensor])


def cut_pieces(pieces: Mapping[str, tuple[ParameterSlice, ...]], tensors: Iterable[Tensor], cut: Cut) -> dict[str, tuple[ParameterSlice, ...]]:
    """Map tensors to parameter slices after cutting those of `tensors` that are in `pieces`."""
    found = dict(pieces)
    for tensor in tensors:
        parts = cut(tensor) if tensor.name in pieces else ()
        if parts:
            of_tensor = found.pop(tensor.name)
            found |= {part.tensor.name: (_cut_piece(of_tensor[max(part.expert, 0)], part),) for part in parts}
    return found


def cut_importance(importance: Mapping[str, Floats], tensors: Iterable[Tensor], cut: Cut) -> dict[str, Floats]:
    """Cut an importance matrix of `tensors`, each `(n_experts or 1, n_columns)`, into that of their parts, each `(1, n_columns)`."""
    found = dict(importance)
    for tensor in tensors:
        parts = cut(tensor) if tensor.name in importance else ()
        if parts:
            channels = found.pop(tensor.name)
            for part in parts:
                expert = max(part.expert, 0)
                found[part.tensor.name] = np.ascontiguousarray(channels[expert : expert + 1, slice(*part.columns)])
    return found


def _cut_piece(whole: ParameterSlice, part: TensorPart) -> ParameterSlice:
    cut = replace(whole, rows=whole.rows[slice(*part.rows)])
    return cut if part_of(part.tensor.name) < 0 else replace(cut, columns=(whole.columns or range(part.columns[1]))[slice(*part.columns)])
