"""Which choices were already asked for: so that none is asked for twice."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice, Choices

#: draws a choice `(n_units,)`
Draw = Callable[[np.random.Generator], Choice]

_ATTEMPTS = 1_000  # draws without a new choice after which there is none


class Seen:
    """A set of choices."""

    def __init__(self) -> None:
        self._keys: set[bytes] = set()

    def lacks(self, choices: Choices) -> NDArray[np.bool_]:
        """Which rows of `choices` `(n, n_units)` are not among them: `(n,)`."""
        return np.array([choice.tobytes() not in self._keys for choice in choices], dtype=np.bool_)

    def new(self, choices: Choices) -> Choices:
        """The rows of `choices` `(n, n_units)` that are not among them, each once and in their order; from now on they are."""
        kept = []
        for i, key in enumerate(choice.tobytes() for choice in choices):
            if key not in self._keys:
                self._keys.add(key)
                kept.append(i)
        return choices[kept]

    def drawn(self, draw: Draw, rng: np.random.Generator) -> Iterator[Choice]:
        """Draws that are not among them, which from then on are, until no new one comes in a thousand."""
        misses = 0
        while misses < _ATTEMPTS:
            new = self.new(draw(rng)[None])
            misses = 0 if len(new) else misses + 1
            yield from new
