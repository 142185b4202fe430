"""From a score for each unit, high where the unit is important, to a table.

    table[u, f] = rank(u) / n_units · n_weights(u) / n_weights · relative weight error[u, f]

with rank 1 for the lowest score, and the mean of their ranks for units of equal score.

Ranks, because the systems that propose such scores sort by them and use nothing else: their scales mean nothing (a cosine that differs in the third
digit, a kurtosis that differs tenfold), some are negative, and an exponential would need a temperature that no paper gives. Any rising map of a
score gives the same table. What is lost is how much more important a unit is; a proxy in nats knows that.

Weights, because those systems give every layer above a threshold the higher precision, whatever its size. A search that weighs what a format costs
against the bits that it saves does the same only where the cost grows with the unit: then, of units that a format stores equally well, it lowers the
one with the lowest score first. Their layers are all of one size, so there the factor changes nothing.

The relative error carries what the score knows nothing of: what the format does to this unit.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bitwright.spaces import Space


def scored_table(scores: NDArray[np.float64], space: Space, *, relative_error: NDArray[np.float64]) -> NDArray[np.float64]:
    """The table `(n_units, n_formats)` of `scores` `(n_units,)` and `relative_error` `(n_units, n_formats)`, NaN where that is.

    Raises:
        ValueError: a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite: {scores}")
    ranks: NDArray[np.float64] = rankdata(scores) / len(scores)
    return ranks[:, None] * sized(relative_error, space)


def sized(relative_error: NDArray[np.float64], space: Space) -> NDArray[np.float64]:
    """Relative errors `(n_units, n_formats)` times each unit's share of the weights: their sum over a choice is a mean over weights, not units."""
    n_weights = np.array([unit.n_weights for unit in space.units])
    shared: NDArray[np.float64] = relative_error * (n_weights / n_weights.sum())[:, None]
    return shared


def layer_scores(space: Space, of_blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of decoder blocks `(n_blocks,)` given to their units `(n_units,)`.

    A unit outside the blocks gets the highest: the systems with such scores leave embeddings and head as they are.
    """
    return np.array([of_blocks[unit.layer] if unit.layer >= 0 else of_blocks.max() for unit in space.units])
