"""Units of the search: a tensor, or several tensors that share one format."""

from dataclasses import dataclass
from math import prod

#: role of a tensor that no engine quantizes
KEPT = "kept"


@dataclass(frozen=True)
class Tensor:
    """Tensor as the engine stores it: `shape` has the row length last, `stored` names its format in the source.

    `kind` is the role by which rules, cuts and proxies know it (`attn_q`); empty for a GGUF tensor, whose name has it. `initialised` says that its
    loader initialises the layer, for which something called `weight` has to be there, before it unpacks it.
    """

    name: str
    shape: tuple[int, ...]
    stored: str
    kind: str = ""
    initialised: bool = False

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def n_matrices(self) -> int:
        """Number of matrices: the experts of a stack, else 1."""
        return prod(self.shape[:-2])


@dataclass(frozen=True)
class Unit:
    """Tensors that share one format: a tie is a unit with several tensors, so no algorithm can split it.

    `layer` is the block's index, or -1 for a tensor outside the blocks; `kind` is the role (`attn_q`), or the path within the block where it has
    none; `expert` is the index of the expert within its block, or -1 where the unit is not a single expert.
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
