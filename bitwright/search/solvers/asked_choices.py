"""Set of the choices that a search has already asked for, so that none is measured twice."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice, Choices

#: draws a choice `(n_units,)`
Draw = Callable[[np.random.Generator], Choice]

_ATTEMPTS = 1_000  # draws in a row without a new choice, after which the search space counts as exhausted


class Seen:
    """Set of choices."""

    def __init__(self) -> None:
        self._keys: set[bytes] = set()

    def lacks(self, choices: Choices) -> NDArray[np.bool_]:
        """Mask of the rows of `choices` `(n, n_units)` that are not in the set: `(n,)`."""
        return np.array([choice.tobytes() not in self._keys for choice in choices], dtype=np.bool_)

    def new(self, choices: Choices) -> Choices:
        """Add `choices` `(n, n_units)` to the set and return the rows that it did not hold, each once, in their order."""
        kept = []
        for i, key in enumerate(choice.tobytes() for choice in choices):
            if key not in self._keys:
                self._keys.add(key)
                kept.append(i)
        return choices[kept]

    def drawn(self, draw: Draw, rng: np.random.Generator) -> Iterator[Choice]:
        """Yield draws that the set does not hold, and add them, until a thousand draws in a row bring no new one."""
        misses = 0
        while misses < _ATTEMPTS:
            new = self.new(draw(rng)[None])
            misses = 0 if len(new) else misses + 1
            yield from new
