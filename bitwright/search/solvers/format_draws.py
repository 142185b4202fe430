"""Random numbers for every format of a space, drawn only for those that some unit is offered.

A space has a column for each format of its target, offered or not, so that a choice means the same in all spaces of a run. Drawn for every column,
the random numbers of a search would change with each format that a target learns, even where nothing is offered in it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Space


def drawn_by_format(space: Space, draw: Callable[[int], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return random numbers for the formats of a space `(..., n_formats)`, 0 for those that no unit is offered. `draw` gives them for a number of
    formats `(..., that number)`.
    """
    columns = np.flatnonzero(space.offered.any(axis=0))
    numbers = draw(len(columns))
    spread = np.zeros((*numbers.shape[:-1], len(space.formats)))
    spread[..., columns] = numbers
    return spread
