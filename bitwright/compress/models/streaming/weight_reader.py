"""Reader of a module's weights from the files of its checkpoint, straight into its parameters and a few rows at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor as Torch

from bitwright.compress.models.row_source import Rows, chunks_of, fill_parameter
from bitwright.errors import ModelError

Stamp = tuple[int, int, int]


class WeightReader:
    """Reader of parameters by `rows`, from `files` that must stay as they are."""

    def __init__(self, rows: Rows, files: Sequence[Path]) -> None:
        self._rows = rows
        self._stamps = {path: _stamp(path) for path in files}

    def fill(self, name: str, parameter: Torch) -> None:
        """Read the weights of the parameter called `name` into it; see `fill_parameter`."""
        fill_parameter(name, parameter, self._rows)

    def parts(self, name: str, like: Torch) -> Iterator[Torch]:
        """Yield the weights of the parameter called `name`, of the shape of `like`, a few rows at a time.

        Raises:
            ModelError: they cannot be read.
        """
        yield from (self._rows(piece) for piece, _ in chunks_of(name, torch.empty(like.shape, device="meta")))

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


def _stamp(path: Path) -> Stamp:
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns
