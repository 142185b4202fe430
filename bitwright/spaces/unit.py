"""What one decision is about: a tensor, or several that must agree."""

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Tensor:
    """A tensor as the engine stores it: `shape` has the row length last, `stored` names the format it has in the source."""

    name: str
    shape: tuple[int, ...]
    stored: str

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return prod(self.shape)


@dataclass(frozen=True)
class Unit:
    """Tensors that get one format together: a tie is a unit with several tensors, so no algorithm can split it.

    `layer` is the block's index, or -1 for what stands outside the blocks; `kind` is the role, as the engine names it (`attn_q`); `expert` is the
    index of the expert among those of its block, or -1 for what is no single expert.
    """

    name: str
    layer: int
    kind: str
    tensors: tuple[Tensor, ...]
    expert: int = -1

    @property
    def n_weights(self) -> int:
        """Number of weights over all tensors."""
        return sum(tensor.n_weights for tensor in self.tensors)
