"""Intercept every use of an engine tensor in a forward pass, in whatever module it occurs.

transformers applies weights through `torch.nn.functional.linear` and `embedding`, in `nn.Linear` as well as expert by expert in a mixture of
experts. A tap recognises the weight by its memory address, so no module is patched and no layer name is needed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch
from torch.overrides import TorchFunctionMode

from bitwright.compress import Model


@dataclass(frozen=True, eq=False)
class Use:
    """Consecutive rows of an engine tensor, located in the weight W of one `linear` or `embedding` call.

    `group` is the index of the slice within the tensor: the expert in a stack of experts, else 0. `first_row` is the first engine row, `order`
    `(n_rows,)` the row of W for each engine row, and `columns` the half-open range of W's columns, None for all; `expert` is the index of W in its
    parameter, -1 where W is the whole parameter.
    """

    tensor: str
    group: int
    first_row: int
    order: NDArray[np.int64]
    expert: int
    columns: tuple[int, int] | None = None


class Tap(ABC):
    """Observer of every use of an engine tensor."""

    @abstractmethod
    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        """Observe `y = x Wᵀ`: `x` `(..., n_columns)`, `y` `(..., n_rows of W)`. Where `uses` have a range of columns of W, `x` has these columns
        only, and `y` is the whole product.
        """

    @abstractmethod
    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Observe a look-up of the rows `ids` of W, with the result `y` `(*ids.shape, n_columns)`."""


def is_mixture(model: Model) -> bool:
    """Return whether some tensors are experts: their inputs mix the tokens of all sequences, so sequences must be run one at a time."""
    return any(piece.expert >= 0 for pieces in model.pieces.values() for piece in pieces)


class Tapped(TorchFunctionMode):
    """Context in which `tap` observes every use of an engine tensor: `with Tapped(model, tap): model.module(ids)`."""

    def __init__(self, model: Model, tap: Tap) -> None:
        super().__init__()
        self._tap, self._uses = tap, _uses_by_address(model)
        if is_mixture(model):
            model.module.set_experts_implementation("eager")

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, then report it to the tap."""
        result = func(*args, **(kwargs or {}))
        if func is torch.nn.functional.linear:
            uses = self._uses.get((args[1].data_ptr(), tuple(args[1].shape)), [])
            for columns in dict.fromkeys(use.columns for use in uses):
                of_columns = [use for use in uses if use.columns == columns]
                self._tap.linear(of_columns, args[0] if columns is None else args[0][..., slice(*columns)], result)
        elif func is torch.nn.functional.embedding:
            uses = self._uses.get((args[1].data_ptr(), tuple(args[1].shape)), [])
            if uses:
                self._tap.embedding(uses, args[0], result)
        return result


def _uses_by_address(model: Model) -> dict[tuple[int, tuple[int, ...]], list[Use]]:
    parameters = dict(model.module.named_parameters())
    found: dict[tuple[int, tuple[int, ...]], list[Use]] = {}
    for name, pieces in model.pieces.items():
        first_row = 0
        for group, piece in enumerate(pieces):
            matrix = piece.matrix(parameters[piece.parameter])
            use = Use(name, group, first_row, piece.order(), piece.expert, piece.columns)
            found.setdefault((matrix.data_ptr(), tuple(matrix.shape)), []).append(use)
            first_row += piece.n_rows
    return found
