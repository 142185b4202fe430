"""Published method that takes parts of a model away: what it sees of the model, and which structures it proposes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors import ChannelScoring
from bitwright.spaces import Structure, StructureKind

#: shares of the channels that methods keep, from much to little
KEPT_SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
#: difference of all methods from what was published
MEASURED = "formats are chosen with what is taken away, and how much goes is measured"


@dataclass(frozen=True)
class KeptModel:
    """Model without some of its parts on a few sequences: the mean `cosine` of its last hidden states and the original's, a vector for each sequence,
    and its cross-entropy.
    """

    cosine: float
    nats_per_token: float


@dataclass(frozen=True, eq=False)
class SeenModel:
    """Model as a method sees it. `cosines` `(n_blocks, n_sequences, length)` are those of a block's input and output at every token, and `distances`
    `(n_blocks + 1, n_blocks + 1)` the angular distances of the states before blocks i and j at the last token.

    `kept` measures the model of which only a structure is kept, in its original weights. `divergence` is that of the model with the formats of the
    best plan of formats alone, of which only a structure is kept, from the original, in nats/token on so many tokens. `part_weights` `(n_blocks, 2)`
    are the numbers of weights of a block's attention and feed-forward part, and draws are by `seed`. `router_scores` `(n_blocks, n_experts)` are the
    router's probabilities of the routed experts summed over the tokens that are sent to them, `n_experts_used` for each token; of a dense model there
    are none. `channel_scores` are those of a method that has its own, of each block's channels in their falling order `(n_channels,)`.
    """

    cosines: NDArray[np.float64]
    distances: NDArray[np.float64]
    kept: Callable[[Structure], KeptModel]
    divergence: Callable[[Structure, int], float]
    part_weights: NDArray[np.int64]
    seed: int
    router_scores: NDArray[np.float64]
    n_experts_used: int = 0
    channel_scores: tuple[NDArray[np.float64], ...] = ()


#: the numbers of channels that may be kept of so many, all of them first
Widths = Callable[[int], Sequence[int]]


@dataclass(frozen=True, eq=False)
class StructureMethod:
    """Published method that takes parts of these `kinds` away. `proposed` yields its structures of a whole one, from little to much, with widths
    among those that may be kept. `scores` measures how much each feed-forward channel is worth; a method without them takes channels by energy.
    `source` and `differs` are as for `Method`.
    """

    name: str
    source: str
    differs: str
    kinds: tuple[StructureKind, ...]
    proposed: Callable[[SeenModel, Structure, Widths], Iterator[Structure]]
    scores: ChannelScoring | None = None


def nearest_width(widths: Widths, n_channels: int, kept: float) -> int:
    """Return the number of channels that may be kept of so many that is nearest to `kept`, of two the larger."""
    return min(widths(n_channels), key=lambda width: abs(width - kept))
