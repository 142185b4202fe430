"""Vectors and small matrices of a file by their values alone, whatever their arrangement.

llama.cpp's converter changes some of them: it adds 1 to the norms of Gemma, stores −exp(A) for the A of Mamba, squeezes and permutes others. A
parameter holds a tensor if it has the same values, in any order and up to one of these changes; a longer one if it has each of them.
"""

import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress.models.source import Floats

_CHANGES: tuple[Callable[[Floats], Floats], ...] = (
    lambda x: x,
    lambda x: x + 1,
    lambda x: -np.exp(x),
    np.exp,
    lambda x: -x,
)
_TOLERANCE = 1e-5
_LARGEST = 1 << 24  # weights of a parameter that is looked into
_NUMBER = re.compile(r"\.(\d+)\.")


def block_of(name: str) -> int:
    """Return the number of the block in the name of a tensor or a parameter, -1 if it has none."""
    found = _NUMBER.search(name)
    return int(found[1]) if found else -1


class Values:
    """Sorted values of parameters, by block."""

    def __init__(self, parameters: Mapping[str, Torch]) -> None:
        self._blocks: dict[int, list[Torch]] = {}
        self._sorted: dict[int, Floats] = {}
        for name, weight in parameters.items():
            if weight.numel() <= _LARGEST:
                self._blocks.setdefault(block_of(name), []).append(weight.detach())

    def hold(self, tensor: str, values: Floats) -> bool:
        """Return whether some parameter of the same block has these values."""
        wanted = np.sort(values.reshape(-1))
        with np.errstate(over="ignore", invalid="ignore"):
            return any(_same(wanted, change(has)) for has in self._in_block(block_of(tensor), len(wanted)) for change in _CHANGES)

    def _in_block(self, block: int, at_least: int) -> Iterator[Floats]:
        for weight in self._blocks.get(block, ()):
            if weight.numel() >= at_least:
                if id(weight) not in self._sorted:
                    self._sorted[id(weight)] = np.sort(weight.float().cpu().numpy().reshape(-1))
                yield self._sorted[id(weight)]


def _same(wanted: Floats, has: NDArray[np.float32]) -> bool:
    """Return whether sorted values are all among others; each once if they are as many."""
    has = np.sort(has)
    if len(has) == len(wanted):
        return bool(np.allclose(has, wanted, rtol=_TOLERANCE, atol=_TOLERANCE))
    place = np.clip(np.searchsorted(has, wanted), 1, len(has) - 1)
    apart = np.minimum(np.abs(has[place] - wanted), np.abs(has[place - 1] - wanted))
    return bool((apart <= _TOLERANCE * (1 + np.abs(wanted))).all())
