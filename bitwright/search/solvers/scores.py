"""Importance scores of units, checked: what strategies that rank units start from."""

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.spaces import Space


def checked_scores(space: Space, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """`scores` `(n_units,)` as they are.

    Raises:
        UserError: another shape than one score for each unit, or a score that is not finite.
    """
    if scores.shape != (len(space.units),):
        raise UserError(f"Scores must be one for each of {len(space.units)} units; these are of shape {scores.shape}: score the units again.")
    faults = np.flatnonzero(~np.isfinite(scores))
    if len(faults):
        name, score = space.units[faults[0]].name, scores[faults[0]]
        raise UserError(f"A score must be finite; that of {name} is {score} ({len(faults)} such): score the units again.")
    return scores


def weights_of(space: Space) -> NDArray[np.int64]:
    """How many weights each unit has `(n_units,)`."""
    return np.array([unit.n_weights for unit in space.units], dtype=np.int64)
