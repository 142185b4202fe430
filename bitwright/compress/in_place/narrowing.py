"""Parts of a model that are taken away, as zero columns of the matrices that they end in, and as experts that routers cannot choose.

The output of attention is a product with the concatenated outputs of its heads, that of a feed-forward part one with its channels, so a zero column
takes a head or a channel away exactly. An expert that is never chosen is as good as none.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bitwright.compress.in_place.dropping import NarrowedRouter
from bitwright.compress.models.model import Model
from bitwright.compress.models.ordered_source import last_matrices, whole_structure
from bitwright.compress.models.residence import Weights
from bitwright.compress.models.routers import router_tensors
from bitwright.compress.models.source import Floats, Source
from bitwright.spaces import Structure, Tensor, expert_of


@dataclass(frozen=True)
class StoredWeights:
    """Weights of a tensor as its source has them."""

    source: Source
    tensor: Tensor

    def __call__(self) -> Floats:
        """Return the weights `(n_rows, n_columns)`."""
        return self.source.read(self.tensor)


@dataclass(frozen=True)
class NarrowedWeights:
    """Weights of a matrix of which the first `n_columns` columns are kept, and the others are zero."""

    whole: Callable[[], Floats]
    n_columns: int

    def __call__(self) -> Floats:
        """Return the weights `(n_rows, n_columns)`."""
        weights = self.whole().copy()
        weights[:, self.n_columns :] = 0
        return weights


def narrowed_weights(model: Model, weights: Weights, structure: Structure) -> Weights:
    """Return `weights` with zero columns for the parts that are not kept, and routers that choose among the experts that are; heads and channels of
    the model are in the order in which they are kept.
    """
    whole, last, found = whole_structure(model.source), last_matrices(model.tensors), dict(weights)
    for role, kept, full in (
        ("attn_output", structure.head_groups, whole.head_groups),
        ("ffn_down", structure.channels, whole.channels),
    ):
        for layer, (n_kept, n_full) in enumerate(zip(kept, full, strict=True)):
            for tensor in last[layer, role] if n_kept < n_full else ():
                given = weights.get(tensor.name, StoredWeights(model.source, tensor))
                found[tensor.name] = NarrowedWeights(given, tensor.shape[-1] // n_full * n_kept)
    dropped = structure.dropped(whole)
    routers = router_tensors(model) if dropped else {}
    for tensor in (tensor for tensor in model.tensors if tensor.name in routers.values()):
        layer = expert_of(tensor.name)[0]
        if layer in dropped:
            found[tensor.name] = NarrowedRouter(found.get(tensor.name, StoredWeights(model.source, tensor)), layer, dropped[layer])
    return found
