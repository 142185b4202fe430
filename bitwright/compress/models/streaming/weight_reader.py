"""Reader of a module's weights from the files of its checkpoint, straight into its parameters and a few rows at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor as Torch

from bitwright.compress.models.row_source import Rows
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.errors import ModelError

_CHUNK_BYTES = 1 << 25

Stamp = tuple[int, int, int]


class WeightReader:
    """Reader of parameters by `rows`, from `files` that must stay as they are."""

    def __init__(self, rows: Rows, files: Sequence[Path]) -> None:
        self._rows = rows
        self._stamps = {path: _stamp(path) for path in files}

    def fill(self, name: str, parameter: Torch) -> None:
        """Read the weights of the parameter called `name` into it, rounded to its type.

        Raises:
            ModelError: they cannot be read.
        """
        with torch.inference_mode(mode=False), torch.no_grad():
            for piece, place in _pieces(name, parameter):
                place.copy_(self._rows(piece).reshape(place.shape))

    def read(self, name: str, like: Torch) -> Torch:
        """Read the weights of the parameter called `name` into a new tensor of the shape and type of `like`.

        Raises:
            ModelError: they cannot be read.
        """
        with torch.inference_mode(mode=False):
            weights = torch.empty_like(like)
        self.fill(name, weights)
        return weights

    def require_unchanged(self) -> None:
        """Require that the files are those that were opened.

        Raises:
            ModelError: one of them is gone, or was written since.
        """
        for path, stamp in self._stamps.items():
            try:
                now = _stamp(path)
            except OSError as error:
                raise ModelError(
                    f"The weights of a streamed model must stay where they are; {path} is gone ({error.strerror}): put it back, and run the same "
                    "command again, which goes on where it was."
                ) from error
            if now != stamp:
                raise ModelError(
                    f"The weights of a streamed model must not change while they are read; {path} was written: put the file back, and run the same "
                    "command again."
                )


def _pieces(name: str, parameter: Torch) -> Iterator[tuple[ParameterSlice, Torch]]:
    """Yield slices of a parameter, a few rows each, with the part of it that each is."""
    if parameter.dim() == 0:
        yield ParameterSlice(name, -1, range(1)), parameter
    elif parameter.dim() == 3 and parameter.shape[1] > 1:  # a stack of matrices
        for expert, matrix in enumerate(parameter):
            yield from ((ParameterSlice(name, expert, rows), matrix[rows.start : rows.stop]) for rows in _chunks(matrix))
    else:
        yield from ((ParameterSlice(name, -1, rows), parameter[rows.start : rows.stop]) for rows in _chunks(parameter))


def _chunks(matrix: Torch) -> Iterator[range]:
    """Yield ranges of rows of at most `_CHUNK_BYTES` in float32, at least one row each."""
    step = max(1, _CHUNK_BYTES * matrix.shape[0] // max(4 * matrix.numel(), 1))
    yield from (range(start, min(start + step, matrix.shape[0])) for start in range(0, matrix.shape[0], step))


def _stamp(path: Path) -> Stamp:
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns
