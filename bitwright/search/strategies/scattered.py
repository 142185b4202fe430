"""Random choices of given sizes whose units scatter around a common bit width, for validating a sensitivity table.

Uniformly random choices use the coarsest format somewhere, and that alone determines their loss. These use formats of similar width, as good
choices do.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice, Choices, Space

_SCATTER = 1.0  # bits per weight, one standard deviation
_TOLERANCE = 0.005  # of the file on either side, so that choices of equal size differ by less than 1 %
_DRAWS = 200
_HALVINGS = 30


def scattered(space: Space, sizes_bytes: NDArray[np.float64], *, rng: np.random.Generator) -> Choices:
    """Draw a random choice for each of `sizes_bytes` `(n,)`: `(n, n_units)`, each the first draw within half a per cent of its size, or the nearest
    of 200.
    """
    return np.array([_of_size(space, size, rng=rng) for size in sizes_bytes], dtype=np.int64).reshape(-1, len(space.units))


def sizes_between(space: Space, first: float, last: float, n: int) -> NDArray[np.float64]:
    """Return `n` sizes of whole files in bytes, evenly spaced by ratio, from the share `first` to the share `last` of the way from the smallest file
    to the largest.
    """
    smallest, largest = (space.total_bytes(choice) for choice in (space.smallest(), space.largest()))
    sizes: NDArray[np.float64] = smallest * (largest / smallest) ** np.linspace(first, last, n)
    return sizes


def _of_size(space: Space, size_bytes: float, *, rng: np.random.Generator) -> Choice:
    nearest, least = space.smallest(), np.inf
    for _ in range(_DRAWS):
        choice = _levelled(space, size_bytes, rng.normal(0.0, _SCATTER, len(space.units)))
        missed = abs(space.total_bytes(choice) / size_bytes - 1)
        nearest, least = (choice, missed) if missed < least else (nearest, least)
        if least < _TOLERANCE:
            break
    return nearest


def _levelled(space: Space, size_bytes: float, scatter: NDArray[np.float64]) -> Choice:
    """Return the units' nearest formats to a level plus their `scatter` `(n_units,)`, in bits per weight, at the largest level that fits."""
    width = np.array([form.bits_per_weight for form in space.formats])

    def at(level: float) -> Choice:
        choice: Choice = np.where(space.offered, np.abs(width - level - scatter[:, None]), np.inf).argmin(axis=1)
        return choice

    offered = width[space.offered.any(axis=0)]
    low, high = offered.min() - 4, offered.max() + 4
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if space.total_bytes(at(middle)) <= size_bytes else (low, middle)
    return at(low)
