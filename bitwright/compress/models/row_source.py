"""Source whose tensors are made of slices of a module's parameters, read row by row on demand."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress.models.float_types import FLOAT_TYPES, float_bytes, holds
from bitwright.compress.models.source import Bytes, Floats, Source
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import Tensor

#: reads the rows of a parameter slice in engine order, on the CPU, in a type of floats that has each of them exactly
Rows = Callable[[ParameterSlice], Torch]


_CHUNK_BYTES = 1 << 23  # so small that what is read is still in the cache of the processor when it is converted
_ROWS_AT_ONCE = 4096
_LARGEST_GAP = 16  # rows between two that are read together


def fill_parameter(name: str, parameter: Torch, rows: Rows) -> None:
    """Read the weights of the parameter called `name` into it, a few rows at a time and rounded to its type.

    Raises:
        ModelError: they cannot be read.
    """
    with torch.inference_mode(mode=False), torch.no_grad():
        for piece, place in chunks_of(name, parameter):
            place.copy_(rows(piece).reshape(place.shape))


def chunks_of(name: str, parameter: Torch) -> Iterator[tuple[ParameterSlice, Torch]]:
    """Yield slices of a parameter, a few rows each, with the part of it that each is."""
    if parameter.dim() == 0:
        yield ParameterSlice(name, -1, range(1)), parameter
    elif parameter.dim() == 3 and parameter.shape[1] > 1:  # a stack of matrices
        for expert, matrix in enumerate(parameter):
            yield from ((ParameterSlice(name, expert, rows), matrix[rows.start : rows.stop]) for rows in _row_ranges(matrix))
    else:
        yield from ((ParameterSlice(name, -1, rows), parameter[rows.start : rows.stop]) for rows in _row_ranges(parameter))


def _row_ranges(matrix: Torch) -> Iterator[range]:
    """Yield ranges of rows of at most `_CHUNK_BYTES` in float32, at least one row each."""
    step = max(1, _CHUNK_BYTES * matrix.shape[0] // max(4 * matrix.numel(), 1))
    yield from (range(start, min(start + step, matrix.shape[0])) for start in range(0, matrix.shape[0], step))


def _parts_of(piece: ParameterSlice) -> Iterator[ParameterSlice]:
    """Yield parts of a slice of `_ROWS_AT_ONCE` rows; a transposed one, all of which is read for any of its rows, whole."""
    step = max(piece.n_rows, 1) if piece.transposed else _ROWS_AT_ONCE
    yield from (replace(piece, rows=piece.rows[start : start + step]) for start in range(0, piece.n_rows, step))


class RowSource(Source, ABC):
    """Tensors in the formats of floats: `pieces` are the parameter slices of each by name, and `rows` reads one of them."""

    rows: Rows
    pieces: Mapping[str, tuple[ParameterSlice, ...]]
    reads_rows = True

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the tensor's bytes `(n_bytes,)` in the format `tensor.stored`, as they stand in a file."""
        if len(tensor.shape) == 3:  # one at a time: a stack may be as large as all other tensors together
            return np.concatenate([self.stored_part(tensor, expert) for expert in range(tensor.shape[0])])
        return float_bytes(tensor.stored, self.values(tensor))

    def read(self, tensor: Tensor) -> Floats:
        """Read weights as float32 `(n_rows, n_columns)`: all dimensions but the last are folded into rows."""
        weights: Floats = self.values(tensor).float().numpy()
        return weights

    @abstractmethod
    def values(self, tensor: Tensor) -> Torch:
        """Read weights `(n_rows, n_columns)` in a type of floats that has each of them exactly."""

    def part(self, tensor: Tensor, expert: int) -> Floats:
        """Read the rows of one expert of a stack as float32 `(n_rows, n_columns)`; the others are not read."""
        weights: Floats = self.rows(self.pieces[tensor.name][expert]).float().numpy()
        return weights

    def stored_part(self, tensor: Tensor, expert: int) -> Bytes:
        """Return the stored bytes of one expert of a stack; the others are not read."""
        return float_bytes(tensor.stored, self.rows(self.pieces[tensor.name][expert]))

    def joined_rows(self, tensor: Tensor) -> Torch:
        """Read all slices of a tensor, one below the other."""
        pieces = [self.rows(piece) for piece in self.pieces[tensor.name]]
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def some_rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        """Read the rows from `start` up to `stop` of a matrix; the others are not read."""
        return self.chosen_rows(tensor, np.arange(start, stop))

    def chosen_rows(self, tensor: Tensor, rows: NDArray[np.int64]) -> Floats:
        """Read the ascending `rows` `(n,)` of a matrix, and of the others as few as lie between them."""
        found, first = [np.empty((0, tensor.shape[-1]), dtype=np.float32)], 0
        for piece in self.pieces[tensor.name]:
            inside = rows[(rows >= first) & (rows < first + piece.n_rows)] - first
            gaps = np.flatnonzero(np.diff(inside) > (piece.n_rows if piece.transposed else _LARGEST_GAP)) + 1  # see `_parts_of`
            for near in np.split(inside, gaps) if len(inside) else ():
                start, stop = int(near[0]), int(near[-1]) + 1
                found.append(self.rows(replace(piece, rows=piece.rows[start:stop]))[torch.from_numpy(near - start)].float().numpy())
            first += piece.n_rows
        return np.concatenate(found)

    def narrowest(self, pieces: Iterable[ParameterSlice]) -> str:
        """Return the narrowest float type that is lossless for every weight of `pieces`."""
        exact = list(FLOAT_TYPES)
        for weights in (self.rows(part) for piece in pieces for part in _parts_of(piece)):
            exact = [name for name in exact if name == "F32" or holds(name, weights)]
            if exact == ["F32"]:
                break
        return exact[0]
