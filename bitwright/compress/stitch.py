"""One choice after another in a torch module: only the units that differ from the choice before are written.

A search measures hundreds of choices of which most differ in two units, so what has been expanded is kept in memory as far as a bound allows.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor as Torch

from bitwright.compress.levels import Levels
from bitwright.compress.model import Model
from bitwright.spaces import Choice, Format, Space, Tensor

EXPANDED_BYTES = 1 << 31
_ORIGINAL = -1


@contextmanager
def stitched(model: Model, levels: Levels, *, space: Space) -> Iterator["Stitcher"]:
    """What gives the module the weights of one choice after another, for as long as the block lasts; then the original weights come back.

    Every pair of the choices must have been packed before, since the original weights are not there to be read. Memory beside the model: the
    parameters that are decided about, once more, and at most 2 GiB of expanded weights.
    """
    names = {piece.parameter for unit in space.units for tensor in unit.tensors for piece in model.pieces[tensor.name]}
    stitcher = Stitcher(model, levels, space, {name: model.module.get_parameter(name).detach().clone() for name in names})
    try:
        yield stitcher
    finally:
        stitcher.restore()


class Stitcher:
    """Gives a module the weights of choices. Made by `stitched`, which saves the original weights first."""

    def __init__(self, model: Model, levels: Levels, space: Space, saved: dict[str, Torch]) -> None:
        self._model, self._levels, self._space, self._saved = model, levels, space, saved
        self._standing = np.full(len(space.units), _ORIGINAL)
        self._expanded: OrderedDict[tuple[str, str], Torch] = OrderedDict()

    @torch.no_grad()
    def restore(self) -> None:
        """Give the module its original weights."""
        for name, original in self._saved.items():
            self._model.module.get_parameter(name).copy_(original)
        self._standing[:] = _ORIGINAL

    @torch.no_grad()
    def put(self, choice: Choice) -> None:
        """Give the module the weights of a choice `(n_units,)`."""
        for u in np.flatnonzero(self._standing != choice):
            form = self._space.formats[choice[u]]
            for tensor in self._space.units[u].tensors:
                self._write(tensor, form)
            self._standing[u] = choice[u]

    def _write(self, tensor: Tensor, form: Format) -> None:
        keeps = form.name == tensor.stored
        rows = None if keeps else self._rows(tensor, form)
        start = 0
        for piece in self._model.pieces[tensor.name]:
            parameter = self._model.module.get_parameter(piece.parameter)
            part = piece.to_engine(self._saved[piece.parameter]) if rows is None else rows[start : start + piece.n_rows].to(parameter.device)
            piece.from_engine(parameter, part)
            start += piece.n_rows

    def _rows(self, tensor: Tensor, form: Format) -> Torch:
        """Expanded weights `(n_rows, n_columns)` in engine order; the longest unused make room for the newest."""
        key = tensor.name, form.name
        if key not in self._expanded:
            self._expanded[key] = torch.from_numpy(self._levels.weights(tensor, form))
            while sum(4 * rows.numel() for rows in self._expanded.values()) > EXPANDED_BYTES and len(self._expanded) > 1:
                self._expanded.popitem(last=False)
        self._expanded.move_to_end(key)
        return self._expanded[key]
