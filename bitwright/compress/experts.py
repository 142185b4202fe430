"""A mixture of experts with every expert of a block as a tensor of its own.

llama.cpp stores the experts of a block as one tensor `(n_experts, n_rows, n_columns)` in one format. Other containers hold them apart, and so may
give each a format of its own: there expert 3 of `blk.0.ffn_up_exps.weight` is `blk.0.ffn_up_exps.3.weight`. It is a view: the weights stay where
they are.
"""

from collections.abc import Mapping

import numpy as np

from bitwright.compress.pieces import Piece
from bitwright.compress.source import Bytes, Floats, Source
from bitwright.spaces import Tensor


class ExpertsApart(Source):
    """Another source with its stacks of experts cut into tensors; everything else, the fingerprint included, is that source's."""

    def __init__(self, whole: Source) -> None:
        self.name, self.architecture, self.fingerprint, self.metadata = whole.name, whole.architecture, whole.fingerprint, whole.metadata
        self.whole, self._of = whole, {part.name: (stack, i) for stack in whole.tensors for i, part in enumerate(parts(stack))}
        self.tensors = tuple(part for tensor in whole.tensors for part in parts(tensor) or (tensor,))

    def read(self, tensor: Tensor) -> Floats:
        """See `Source.read`."""
        if tensor.name not in self._of:
            return self.whole.read(tensor)
        return self.whole.part(*self._of[tensor.name])

    def stored(self, tensor: Tensor) -> Bytes:
        """See `Source.stored`."""
        if tensor.name not in self._of:
            return self.whole.stored(tensor)
        return self.whole.stored_part(*self._of[tensor.name])


def parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The experts `(n_rows, n_columns)` of a stack, nothing for any other tensor."""
    if len(tensor.shape) != 3:
        return ()
    stem = tensor.name.removesuffix(".weight")
    return tuple(Tensor(f"{stem}.{expert}.weight", tensor.shape[1:], tensor.stored) for expert in range(tensor.shape[0]))


def pieces_apart(pieces: Mapping[str, tuple[Piece, ...]]) -> dict[str, tuple[Piece, ...]]:
    """Where the tensors lie once every expert has a name of its own."""
    found: dict[str, tuple[Piece, ...]] = {}
    for name, of_tensor in pieces.items():
        stem = name.removesuffix(".weight")
        apart: dict[str, tuple[Piece, ...]] = {f"{stem}.{piece.expert}.weight": (piece,) for piece in of_tensor if piece.expert >= 0}
        found |= apart or {name: of_tensor}
    return found


def importance_apart(importance: dict[str, Floats]) -> dict[str, Floats]:
    """An importance matrix of stacks `(n_experts, n_columns)` as one of experts, each `(1, n_columns)`."""
    found: dict[str, Floats] = {}
    for name, channels in importance.items():
        stem = name.removesuffix(".weight")
        apart = {f"{stem}.{expert}.weight": channels[expert : expert + 1] for expert in range(len(channels))}
        found |= {name: channels} if len(channels) == 1 else apart
    return {name: np.ascontiguousarray(channels) for name, channels in found.items()}
