"""Source of which parts are taken away: what an engine writes of a model with another structure, and how it is read back."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from itertools import chain

import numpy as np

from bitwright.compress import Bytes, Floats, Source, Weights, last_matrices, matrix_shape
from bitwright.errors import UserError
from bitwright.spaces import Tensor


class NarrowedSource(Source):
    """Tensors that are kept of a whole model, by the names that they have in the file."""

    @abstractmethod
    def renamed(self, formats: Mapping[str, str]) -> dict[str, str]:
        """Return the formats of a plan of the whole model (tensor → format) by the names of what is kept."""

    @abstractmethod
    def packed(self, tensor: Tensor, whole: Callable[[Tensor], Bytes], formats: Mapping[str, str]) -> Bytes:
        """Return the bytes `(n_bytes,)` that are kept of a tensor, from those that `whole` gives of tensors of the whole model in their `formats`."""

    @abstractmethod
    def widened(self, file: Source) -> Weights:
        """Return what gives the matrices of the whole model as `file` has them, zero where nothing is kept."""

    @abstractmethod
    def require_whole_blocks(self, formats: Mapping[str, str]) -> None:
        """Raise if what is kept of a row is no whole number of blocks of its format in `formats` (tensor of the whole model → format).

        Raises:
            UserError: it is none.
        """


def nothing(tensor: Tensor) -> Floats:
    """Return zeros for a matrix of which nothing is kept, float32 `(n_rows, n_columns)`."""
    return np.zeros(matrix_shape(tensor), dtype=np.float32)


def require_unbiased(source: Source) -> None:
    """Raise if the output of a part has a bias, which is measured with zeros in place of the part, and not written.

    Raises:
        UserError: it has.
    """
    names = {tensor.name for tensor in source.tensors}
    biases = (f"{tensor.name.removesuffix('.weight')}.bias" for tensor in chain(*last_matrices(source.tensors).values()))
    biased = next((bias for bias in biases if bias in names), "")
    if biased:
        raise UserError(f"A part can be taken away whose output has no bias; this model has {biased}: leave --structure out.")
