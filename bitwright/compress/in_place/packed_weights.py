"""Weights of a tensor in a format, expanded when they are asked for."""

from dataclasses import dataclass

from bitwright.compress.codecs.packed_cache import PackedTensors
from bitwright.compress.models.source import Floats
from bitwright.spaces import Format, Tensor


@dataclass(frozen=True)
class PackedWeights:
    """Weights of a tensor in a format, expanded from its packed levels."""

    levels: PackedTensors
    tensor: Tensor
    form: Format

    def __call__(self) -> Floats:
        """Return the weights `(n_rows, n_columns)`."""
        return self.levels.weights(self.tensor, self.form)

    def rows(self, start: int, stop: int) -> Floats:
        """Return some rows of the weights `(stop - start, n_columns)`."""
        return self.levels.rows(self.tensor, self.form, start=start, stop=stop)
