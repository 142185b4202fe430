"""Cut tensors into parts that a target stores separately: experts of a stack, or channels of a feed-forward layer.

llama.cpp stores the experts of a block as one tensor `(n_experts, n_rows, n_columns)` in one format. Other containers store them separately, so
each may have its own format: there expert 3 of `model.layers.0.mlp.experts.up_proj` is `model.layers.0.mlp.experts.3.up_proj.weight`.

A gated feed-forward layer, an expert or not, is a sum over its channels, each a row of gate and of up and a column of down (a micro-expert in
CAMERA, AAAI 2026). So it may be cut into ranges of consecutive channels, each a narrower feed-forward layer with the same input: channels of
`mlp.down_proj.weight` are its columns, and their second range is `mlp.part1.down_proj.weight`. In names of GGUF these are
`blk.0.ffn_up_exps.3.weight` and `blk.0.ffn_down.part.1.weight`; GGUF itself has neither.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from bitwright.spaces.discover import of_expert, of_part, role_of
from bitwright.spaces.unit import KEPT, Tensor

N_PARTS, CHANNELS_TOGETHER = 4, 32  # at most four parts per feed-forward layer; each but the last a multiple of 32 channels
_GATED = re.compile(r"ffn_(gate|up|down)(_exps|_shexp)?")
_DOWN = "ffn_down"


@dataclass(frozen=True)
class TensorPart:
    """Slice of a tensor, stored as `tensor`: `rows` and `columns`, each (first, past the last), of its matrix `expert` (-1 for a single matrix)."""

    tensor: Tensor
    expert: int
    rows: tuple[int, int]
    columns: tuple[int, int]


#: a tensor -> its parts, empty for a tensor that is stored whole
Cut = Callable[[Tensor], tuple[TensorPart, ...]]


def uncut(tensor: Tensor) -> tuple[TensorPart, ...]:  # noqa: ARG001
    """Cut nothing: every tensor is stored whole."""
    return ()


def into_experts(tensor: Tensor) -> tuple[TensorPart, ...]:
    """Cut a stack of experts into one tensor per expert."""
    if len(tensor.shape) != 3 or tensor.kind == KEPT:
        return ()
    n_experts, n_rows, n_columns = tensor.shape
    named = (replace(tensor, name=of_expert(tensor.name, expert), shape=(n_rows, n_columns)) for expert in range(n_experts))
    return tuple(TensorPart(part, expert, (0, n_rows), (0, n_columns)) for expert, part in enumerate(named))


def into_channels(tensor: Tensor) -> tuple[TensorPart, ...]:
    """Cut every expert of a stack, and every other feed-forward matrix, into ranges of channels."""
    kind = role_of(tensor)
    if not _GATED.fullmatch(kind):
        return into_experts(tensor)
    n_rows, n_columns = tensor.shape[-2:]
    whole = into_experts(tensor) or (TensorPart(tensor, -1, (0, n_rows), (0, n_columns)),)
    return tuple(part for one in whole for part in _channels(one, across=kind.startswith(_DOWN)))


def channel_ranges(n_channels: int) -> tuple[tuple[int, int], ...]:
    """Return the (first, past the last) channel of each part: at most four parts, as even as multiples of 32 allow."""
    n_groups = max(1, n_channels // CHANNELS_TOGETHER)
    n_parts = min(N_PARTS, n_groups)
    edges = [0, *(round(n_groups * i / n_parts) * CHANNELS_TOGETHER for i in range(1, n_parts)), n_channels]
    return tuple(pairwise(edges))


def _channels(whole: TensorPart, *, across: bool) -> tuple[TensorPart, ...]:
    """Cut an expert or matrix into its channel ranges; its channels are columns where they go `across`."""
    found = []
    for i, channels in enumerate(channel_ranges(whole.tensor.shape[1 if across else 0])):
        rows, columns = (whole.rows, channels) if across else (channels, whole.columns)
        shape = rows[1] - rows[0], columns[1] - columns[0]
        found.append(TensorPart(replace(whole.tensor, name=of_part(whole.tensor.name, i), shape=shape), whole.expert, rows, columns))
    return tuple(found)
