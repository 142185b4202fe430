"""Make a sensitivity table from one importance score per unit.

    table[u, f] = rank(u) / n_units · n_weights(u) / n_weights · relative weight error[u, f]

with rank 1 for the lowest score; units of equal score share the mean of their ranks.

Ranks, because the systems that propose such scores use only their order: the scales are arbitrary (a cosine that differs in the third digit, a
kurtosis that differs tenfold), some scores are negative, and an exponential would need a temperature that no paper gives. Any increasing function of
a score gives the same table. How much more important a unit is gets lost; a proxy in nats per token keeps that.

The share of the weights, because those systems give every layer above a threshold the higher precision, whatever its size. A knapsack, which weighs
cost against bits saved, does the same only if the cost grows with the size of the unit: then, of units with equal relative error, it lowers the one
with the lowest score first. In those systems all layers have one size, so the factor changes nothing there.

The relative weight error adds the effect of the format on the unit, which the score does not depend on.
"""

import numpy as np
import scipy
from numpy.typing import NDArray

from bitwright.spaces import Space


def scored_table(scores: NDArray[np.float64], space: Space, *, relative_error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the table `(n_units, n_formats)` of `scores` `(n_units,)` and `relative_error` `(n_units, n_formats)`, NaN where the latter is NaN.

    Raises:
        ValueError: a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite: {scores}")
    ranks: NDArray[np.float64] = scipy.stats.rankdata(scores) / len(scores)
    return ranks[:, None] * sized(relative_error, space)


def sized(relative_error: NDArray[np.float64], space: Space) -> NDArray[np.float64]:
    """Multiply relative errors `(n_units, n_formats)` by each unit's share of the weights, so that the sum over a choice is a mean over weights."""
    n_weights = np.array([unit.n_weights for unit in space.units])
    shared: NDArray[np.float64] = relative_error * (n_weights / n_weights.sum())[:, None]
    return shared


def layer_scores(space: Space, of_blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the score of each unit's decoder block `(n_units,)`, from those of all blocks `(n_blocks,)`.

    A unit outside the blocks gets the highest score: the systems with such scores do not quantize embeddings and head.
    """
    return np.array([of_blocks[unit.layer] if unit.layer >= 0 else of_blocks.max() for unit in space.units])
