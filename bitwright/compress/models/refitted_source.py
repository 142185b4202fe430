"""Source of which some matrices have other weights, which are rounded to another format than they are stored in."""

from collections.abc import Mapping

from bitwright.compress.models.source import Bytes, Floats, Source
from bitwright.spaces import Tensor


class RefittedSource(Source):
    """Source `whole` with `weights` in place of some matrices, `(n_rows, n_columns)` by name; everything else, stored bytes included, is its own."""

    def __init__(self, whole: Source, weights: Mapping[str, Floats]) -> None:
        self.name, self.architecture, self.metadata = whole.name, whole.architecture, whole.metadata
        self.fingerprint, self.settings, self.tensors = whole.fingerprint, whole.settings, whole.tensors
        self.whole, self._weights = whole, weights

    def read(self, tensor: Tensor) -> Floats:
        """Read the weights of a tensor as float32 `(n_rows, n_columns)`."""
        return self._weights[tensor.name] if tensor.name in self._weights else self.whole.read(tensor)

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the stored bytes `(n_bytes,)` of the whole source."""
        return self.whole.stored(tensor)
