"""Mapping between the engine's tensors and the parameters of the torch module.

An engine tensor is a list of parameter slices, one below the other: one for an ordinary matrix, one per expert where transformers fuses the experts
of a layer into one 3-D parameter, several where the engine fuses what the module keeps apart. A slice takes rows of a matrix in any order:
llama.cpp's rotary embedding pairs neighbouring dimensions for the `llama` architecture where transformers pairs the two halves of a head, so the rows
of q and k are reordered head by head. Where a module multiplies by a matrix from the right, as GPT-2's `Conv1D`, its transpose is what the engine
stores. Where the engine's file has a constant factor of the model multiplied into a matrix, the slice has it as its scale.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

#: rows or columns in order; a range where they are evenly spaced, which costs nothing
Indices = range | tuple[int, ...]


@dataclass(frozen=True)
class ParameterSlice:
    """Slice of a torch parameter: `rows` of it, or of its matrix `expert` if it is 3-D (-1 if it is a plain matrix), in the engine's order.

    `columns` are the columns in the engine's order, None for all. If `transposed`, rows and columns are those of the transpose of the matrix.
    The engine's weights are those of the module times `scale`.
    """

    parameter: str
    expert: int
    rows: Indices
    columns: Indices | None = None
    transposed: bool = False
    scale: float = 1.0

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def start(self) -> int:
        """First row in the order of the module."""
        return min(self.rows, default=0)

    @property
    def stop(self) -> int:
        """Row past the last in the order of the module."""
        return max(self.rows, default=-1) + 1

    @property
    def is_plain(self) -> bool:
        """Return whether the rows are consecutive ones in the order of the module."""
        return isinstance(self.rows, range) and self.rows.step == 1

    def n_weights(self, parameter: Torch) -> int:
        """Return the number of weights in the slice; `parameter` may be on the meta device."""
        shape = self.matrix(parameter).shape
        return self.n_rows * (len(self.columns) if self.columns is not None else int(np.prod(shape[1:])))

    def matrix(self, parameter: Torch) -> Torch:
        """Return the matrix `(n_outputs, n_inputs)` that the slice is cut from, as a view: the parameter itself or one expert's matrix, or its
        transpose; a vector as it is.
        """
        whole = parameter.reshape(1) if parameter.dim() == 0 else parameter if self.expert < 0 else parameter[self.expert]
        return whole.mT if self.transposed else whole

    def order(self) -> NDArray[np.int64]:
        """Return the row of `matrix` for each engine row, `(n_rows,)`."""
        return indices(self.rows)

    def cut(self, parameter: Torch) -> Torch:
        """Copy the rows in engine order, without the scale, `(n_rows, n_columns)`."""
        taken = _taken(self.matrix(parameter), self.rows)
        if self.columns is not None:
            taken = _taken(taken.mT, self.columns).mT
        return taken.clone(memory_format=torch.contiguous_format)

    def put(self, parameter: Torch, rows: Torch) -> None:
        """Write `rows` as `cut` returns them back into the parameter."""
        matrix, values = self.matrix(parameter), rows.to(parameter)
        if self.columns is None:
            matrix[_index(self.rows, parameter)] = values
        elif isinstance(self.rows, range) and isinstance(self.columns, range):
            matrix[_slice(self.rows), _slice(self.columns)] = values
        else:
            places = (torch.from_numpy(indices(each)).to(parameter.device) for each in (self.rows, self.columns))
            matrix[tuple(torch.meshgrid(*places, indexing="ij"))] = values

    def to_engine(self, parameter: Torch) -> Torch:
        """Return the engine's weights `(n_rows, n_columns)`, a copy."""
        rows = self.cut(parameter)
        return rows if self.scale == 1 else rows * self.scale

    def from_engine(self, parameter: Torch, rows: Torch) -> None:
        """Write the engine's weights `rows` `(n_rows, n_columns)` into the parameter."""
        self.put(parameter, self.to_module(rows))

    def to_module(self, rows: Torch) -> Torch:
        """Return the module's weights of those of the engine, in the same order."""
        return rows if self.scale == 1 else rows / self.scale


def indices(chosen: Indices) -> NDArray[np.int64]:
    """Return rows or columns as an array."""
    return np.arange(chosen.start, chosen.stop, chosen.step) if isinstance(chosen, range) else np.array(chosen, dtype=np.int64)


def as_indices(order: NDArray[np.int64]) -> Indices:
    """Return an array of rows or columns as a range if they are evenly spaced and rise, else as a tuple."""
    step = int(order[1] - order[0]) if len(order) > 1 else 1
    if step > 0 and len(order) and (np.diff(order) == step).all():
        return range(int(order[0]), int(order[-1]) + 1, step)
    return tuple(order.tolist())


def interleaved(start: int, stop: int, n_heads: int) -> Indices:
    """Return the rows `start` to `stop` of `n_heads` heads with the dimensions of a rotary pair, half a head apart, next to each other."""
    # (head, half, pair) in torch -> (head, pair, half) in the engine
    return as_indices(np.arange(start, stop).reshape(n_heads, 2, -1).swapaxes(1, 2).reshape(-1))


def in_module_order(piece: ParameterSlice, rows: Torch) -> Torch:
    """Reorder rows `(n_rows, …)` from engine order to the order of the module."""
    if piece.is_plain:
        return rows
    ordered = torch.empty_like(rows)
    ordered[torch.from_numpy(piece.order() - piece.start)] = rows
    return ordered


def _taken(matrix: Torch, rows: Indices) -> Torch:
    return matrix[_index(rows, matrix)]


def _index(chosen: Indices, like: Torch) -> slice | Torch:
    return _slice(chosen) if isinstance(chosen, range) else torch.from_numpy(indices(chosen)).to(like.device)


def _slice(chosen: range) -> slice:
    return slice(chosen.start, chosen.stop, chosen.step)
