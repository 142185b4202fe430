"""Rows of a GGUF file's tensors as the parameters of the transformers module that reads it."""

import numpy as np
import torch
from torch import Tensor as Torch
from transformers import PreTrainedModel

from bitwright.compress.models.architectures import ARCHITECTURES, lay_out
from bitwright.compress.models.gguf.reader import GgufSource
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.spaces import Tensor

_NORM = "norm.weight"


class GgufRows:
    """Reader of the rows of a module's parameters from a GGUF file."""

    def __init__(self, source: GgufSource, skeleton: PreTrainedModel) -> None:
        """Take the file and its module on the meta device.

        Raises:
            ModelError: the architecture is not supported.
        """
        self._source, self._plus_one = source, ARCHITECTURES[source.architecture].norms_plus_one
        self._widths = {name: weight.shape[-1] if weight.dim() > 1 else 1 for name, weight in weights_of(skeleton).items()}
        tensors = {tensor.name: tensor for tensor in source.tensors}
        self._places: dict[tuple[str, int], list[tuple[ParameterSlice, Tensor, int]]] = {}
        for name, pieces in lay_out(skeleton, source.architecture).items():
            for group, piece in enumerate(pieces):
                self._places.setdefault((piece.parameter, piece.expert), []).append((piece, tensors[name], group if len(pieces) > 1 else -1))

    def rows(self, piece: ParameterSlice) -> Torch:
        """Read the rows of a parameter slice in the module's order, `(n_rows, n_columns)` float32; a vector is a column."""
        found = []
        for place, tensor, group in sorted(self._places[piece.parameter, piece.expert], key=lambda found: found[0].start):
            first, past = max(piece.start, place.start), min(piece.stop, place.stop)
            if first < past:
                rows = self._some(tensor, group, place, first - place.start, past - place.start, self._widths[piece.parameter])
                found.append(rows - 1 if self._plus_one and tensor.name.endswith(_NORM) else rows)
        return torch.cat(found) if len(found) > 1 else found[0]

    def _some(self, tensor: Tensor, group: int, place: ParameterSlice, first: int, past: int, width: int) -> Torch:
        """Read the rows from `first` up to `past` of a place, in the module's order; of the tensor no more than lies between them."""
        if tensor.shape[-1] != width:  # a vector
            return torch.from_numpy(np.array(self._source.read(tensor))).reshape(-1, width)[first:past]
        wanted = np.arange(first, past) if place.is_plain else np.argsort(place.order())[first:past]
        begin = (group * tensor.shape[-2] if group > 0 else 0) + int(wanted.min())
        return torch.from_numpy(self._source.some_rows(tensor, begin, begin + int(np.ptp(wanted)) + 1))[torch.from_numpy(wanted - wanted.min())]
