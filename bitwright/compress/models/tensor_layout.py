"""Mapping between the engine's tensors and the parameters of the torch module.

An engine tensor is a list of parameter slices, each consecutive rows of a parameter: one for an ordinary matrix, one per expert where transformers
fuses the experts of a layer into one 3-D parameter. llama.cpp's rotary embedding pairs neighbouring dimensions for the `llama` architecture where
transformers pairs the two halves of a head, so the rows of q and k are reordered head by head.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch


@dataclass(frozen=True)
class ParameterSlice:
    """Slice of a torch parameter: rows `start:stop` of it, or of its matrix `expert` if it is 3-D (-1 if it is a plain matrix).

    `rotary_heads` is the number of heads whose rows the engine interleaves, 0 if the order is the same; `columns` are the first column and the one
    past the last, None for whole rows.
    """

    parameter: str
    expert: int
    start: int
    stop: int
    rotary_heads: int
    columns: tuple[int, int] | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    def matrix(self, parameter: Torch) -> Torch:
        """Return the 2-D matrix that the slice is cut from: the parameter itself or one expert's matrix, as a view."""
        return parameter if self.expert < 0 else parameter[self.expert]

    def of(self, parameter: Torch) -> Torch:
        """Return the columns of `matrix` that the slice covers, as a view."""
        whole = self.matrix(parameter)
        return whole if self.columns is None else whole[:, slice(*self.columns)]

    def order(self) -> NDArray[np.int64]:
        """Return the torch row of `matrix` for each engine row, `(n_rows,)`."""
        rows = np.arange(self.start, self.stop)
        if not self.rotary_heads:
            return rows
        # (head, half, pair) in torch -> (head, pair, half) in the engine
        return rows.reshape(self.rotary_heads, 2, -1).swapaxes(1, 2).reshape(-1)

    def to_engine(self, parameter: Torch) -> Torch:
        """Copy the rows in engine order, `(n_rows, n_columns)`."""
        return self.of(parameter)[torch.from_numpy(self.order()).to(parameter.device)]

    def from_engine(self, parameter: Torch, rows: Torch) -> None:
        """Write `rows` `(n_rows, n_columns)`, in engine order, into the parameter."""
        self.of(parameter)[torch.from_numpy(self.order()).to(parameter.device)] = rows.to(parameter)


def in_module_order(piece: ParameterSlice, rows: Torch) -> Torch:
    """Reorder rows `(n_rows, …)` from engine order to the order of the module."""
    if not piece.rotary_heads:
        return rows
    ordered = torch.empty_like(rows)
    ordered[torch.from_numpy(piece.order() - piece.start)] = rows
    return ordered
