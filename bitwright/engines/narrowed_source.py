"""Source of which parts are taken away: what an engine writes of a model with another structure, and how it is read back."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from itertools import chain

import numpy as np

from bitwright.compress import Bytes, Floats, Source, Weights, has_corrections, is_of_experts, last_matrices, matrix_shape, n_experts
from bitwright.errors import UserError
from bitwright.spaces import Structure, StructureKind, Tensor


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


def require_droppable(source: Source, kinds: Collection[StructureKind]) -> None:
    """Raise if experts are to be taken away, and this model has none that its routers can do without.

    Raises:
        UserError: it is no mixture of experts, a token is sent to all of them, or its routers have more than a matrix.
    """
    if "experts" not in kinds:
        return
    n_used, numbers = source.n_experts_used, n_experts(source)
    if not numbers:
        raise UserError(f"Experts are taken from mixtures of experts; {source.name} is none: leave experts out of --structure.")
    fewest = min(numbers.values())
    if fewest <= n_used:
        raise UserError(f"A layer keeps as many experts as a token is sent to, {n_used} here; {source.name} has {fewest}: leave experts out.")
    biased = next((t.name for t in source.tensors if t.name.endswith(".bias") and (is_of_experts(t) or "exp" in t.name.split(".")[-2])), "")
    if biased or has_corrections(source.tensors):
        raise UserError(
            f"Experts are taken away whose routers and matrices have no biases or corrections; {source.name} has {biased or 'corrections'}: leave "
            "experts out of --structure."
        )


def require_same_experts(source: Source, structure: Structure) -> None:
    """Raise if blocks keep different numbers of experts, or fewer than a token is sent to; engines have one number for all.

    Raises:
        UserError: see above.
    """
    numbers = {i: len(kept) for i, kept in enumerate(structure.experts) if i not in structure.gone}
    few = next((i for i, n in numbers.items() if n < source.n_experts_used), -1)
    if few >= 0:
        raise UserError(
            f"A layer keeps as many experts as a token is sent to, {source.n_experts_used} here, or more; block {few} keeps {numbers[few]}: keep "
            "others too."
        )
    if len(set(numbers.values())) > 1:
        raise UserError(
            f"Every layer keeps the same number of experts, since a model has one number for all; blocks keep {min(numbers.values())} to "
            f"{max(numbers.values())}: keep as many in each, or choose --target native."
        )
