"""Validate importance scores of units, for methods that rank units."""

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.spaces import Space


def checked_scores(space: Space, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `scores` `(n_units,)` unchanged.

    Raises:
        UserError: the shape is not one score per unit, or a score is not finite.
    """
    if scores.shape != (len(space.units),):
        raise UserError(f"Scores must be one for each of {len(space.units)} units; these are of shape {scores.shape}: score the units again.")
    faults = np.flatnonzero(~np.isfinite(scores))
    if len(faults):
        name, score = space.units[faults[0]].name, scores[faults[0]]
        raise UserError(f"A score must be finite; that of {name} is {score} ({len(faults)} such): score the units again.")
    return scores


def weights_of(space: Space) -> NDArray[np.int64]:
    """Number of weights of each unit `(n_units,)`."""
    return np.array([unit.n_weights for unit in space.units], dtype=np.int64)
