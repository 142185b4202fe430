"""How the tensors of the engine lie in the parameters of the torch module.

An engine tensor is a list of pieces, each some consecutive rows of a parameter: one piece for an ordinary matrix, one for each expert where
transformers keeps the experts of a layer in one 3-D parameter. llama.cpp pairs neighbouring dimensions in its rotary embedding for the `llama`
architecture where transformers pairs the two halves of a head, so there the rows of q and k are reordered head by head.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch


@dataclass(frozen=True)
class Piece:
    """Rows `start:stop` of a torch parameter, or of its slice `expert` (-1 where the parameter is a plain matrix).

    `rotary_heads` is the number of heads whose rows the engine keeps interleaved, 0 where the order is the same; `columns` are the first column and
    the one past the last where it is not whole rows.
    """

    parameter: str
    expert: int
    start: int
    stop: int
    rotary_heads: int
    columns: tuple[int, int] | None = None

    @property
    def n_rows(self) -> int:
        """Rows of the engine tensor that this piece makes."""
        return self.stop - self.start

    def matrix(self, parameter: Torch) -> Torch:
        """The 2-D matrix of which the piece is rows: the parameter itself or one expert's slice, a view in either case."""
        return parameter if self.expert < 0 else parameter[self.expert]

    def of(self, parameter: Torch) -> Torch:
        """The columns of `matrix` that the piece is of: all of them where it is whole rows, a view in either case."""
        whole = self.matrix(parameter)
        return whole if self.columns is None else whole[:, slice(*self.columns)]

    def order(self) -> NDArray[np.int64]:
        """For each engine row `(n_rows,)` the torch row of `matrix` that it is."""
        rows = np.arange(self.start, self.stop)
        if not self.rotary_heads:
            return rows
        # (head, half, pair) in torch -> (head, pair, half) in the engine
        return rows.reshape(self.rotary_heads, 2, -1).swapaxes(1, 2).reshape(-1)

    def to_engine(self, parameter: Torch) -> Torch:
        """The rows in engine order `(n_rows, n_columns)`, a copy."""
        return self.of(parameter)[torch.from_numpy(self.order()).to(parameter.device)]

    def from_engine(self, parameter: Torch, rows: Torch) -> None:
        """Write `rows` `(n_rows, n_columns)`, in engine order, into the parameter."""
        self.of(parameter)[torch.from_numpy(self.order()).to(parameter.device)] = rows.to(parameter)
