"""What turns weights into bytes and back."""

from abc import ABC, abstractmethod

from bitwright.compress.source import Bytes, Floats
from bitwright.spaces import Format


class Codec(ABC):
    """A mirror pair: `decode(encode(w))` is what the engine computes with."""

    @abstractmethod
    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Bytes `(n_bytes,)` of `weights` `(n_rows, n_columns)`.

        `importance` is `(n_groups, n_columns)`, the mean squared activation of each input channel: one group for a matrix, one for each expert
        where the rows are the experts one after another, and `(0, n_columns)` where it is not known.

        Raises:
            ModelError: a weight is not finite.
        """

    @abstractmethod
    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Float32 weights `(n_rows, n_columns)` of `packed` bytes."""
