"""Weight that a checkpoint stores as codes with their scales, dequantized when it is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor as Torch

from bitwright.compress.models.checkpoints.safetensors_file import DTYPES, StoredTensor
from bitwright.errors import ModelError, shown

_AGAIN = "download the model again, or give the one that it was made from"
_KEPT = 2  # matrices in memory: rows of one are read one piece after another

#: makes a matrix `(n_rows, n_columns)` of floats of its tensors by role
Decode = Callable[[Mapping[str, Torch]], Torch]
#: tensors of a folder by name
Stored = Mapping[str, StoredTensor]


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """Weight `name` of the shape `shape`, of `bits` for each code, which is stored in `parts`, by role.

    `decode` makes a matrix of them, rounded to `dtype`, the one in which transformers holds the weight. A stack `(n_experts, n_rows, n_columns)` is
    decoded expert by expert, of the slices of its parts.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: int
    parts: Stored
    decode: Decode

    @property
    def path(self) -> Path:
        """File in which the first part lies."""
        return next(iter(self.parts.values())).path

    def rows(self, start: int, stop: int) -> Torch:
        """Dequantize rows `start:stop`, `(n_rows, n_columns)` float32; the leading dimensions are folded.

        Raises:
            ModelError: the parts do not fit each other, or cannot be read.
        """
        n_rows = self.shape[-2]
        found = [_matrix(self, i)[max(start - i * n_rows, 0) : stop - i * n_rows] for i in range(start // n_rows, -(-stop // n_rows))]
        return torch.cat(found)

    def stored_rows(self, start: int, stop: int) -> Torch:
        """Return the same: codes and scales have no rows of their own."""
        return self.rows(start, stop)


@lru_cache(maxsize=_KEPT)
def _matrix(weight: PackedWeight, index: int) -> Torch:
    is_stack = len(weight.shape) > 2
    try:
        found = weight.decode({role: part.slab(index) if is_stack else part.values() for role, part in weight.parts.items()})
    except (RuntimeError, IndexError, KeyError, TypeError, ValueError) as error:  # what torch says of codes and scales that do not fit
        raise misfit(weight, shown(error, 200)) from error
    if tuple(found.shape) != weight.shape[-2:]:
        raise misfit(weight, f"they make a matrix of {times(tuple(found.shape))} where {times(weight.shape[-2:])} is needed")
    return found.to(DTYPES[weight.dtype]).float()


def misfit(weight: PackedWeight, why: str) -> ModelError:
    """Return the error that the tensors of a weight do not fit each other."""
    return ModelError(f"The tensors of a quantized weight must fit each other; those of {weight.name} in {weight.path} do not ({why}): {_AGAIN}.")


def part(stored: Stored, name: str, *shapes: tuple[int, ...]) -> StoredTensor:
    """Return the tensor called `name`, whose shape is one of `shapes`, or any where none is named.

    Raises:
        ModelError: there is none, or it has another shape.
    """
    if name not in stored:
        folder = next(iter(stored.values())).path.parent
        raise ModelError(f"A quantized weight must have its scales and all other tensors; {folder} has no {name}: {_AGAIN}.")
    found = stored[name]
    if shapes and found.shape not in shapes:
        raise ModelError(
            f"The tensors of a quantized weight must fit each other; {name} in {found.path} is {times(found.shape)} where {times(shapes[0])} is "
            f"needed: {_AGAIN}."
        )
    return found


def times(shape: tuple[int, ...]) -> str:
    """Return a shape as a reader writes it."""
    return "×".join(map(str, shape)) or "a single number"
