"""Watch every use of an engine tensor in a forward pass, whatever module it happens in.

transformers applies weights through `torch.nn.functional.linear` and `embedding`, in `nn.Linear` as well as expert by expert in a mixture of
experts. A tap recognises the weight by its address in memory, so no module is patched and no layer is named.
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
    """Some consecutive rows of an engine tensor, where they lie in the weight W of one `linear` or `embedding` call.

    `group` is the number of the piece within the tensor: an expert where it is a stack of them, else 0. `first_row` is the first engine row, `order`
    `(n_rows,)` the row of W for each of them, and `columns` the first and the one past the last of its columns that they are of, None for all;
    `expert` is the slice of the parameter that W is, -1 where it is all of it.
    """

    tensor: str
    group: int
    first_row: int
    order: NDArray[np.int64]
    expert: int
    columns: tuple[int, int] | None = None


class Tap(ABC):
    """What is told of every use."""

    @abstractmethod
    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        """`y = x Wᵀ` was computed: `x` `(..., n_columns)`, `y` `(..., n_rows of W)`. Where `uses` are of some columns of W, `x` is given in these
        columns only, and `y` is the whole product.
        """

    @abstractmethod
    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Rows `ids` of W were looked up into `y` `(*ids.shape, n_columns)`."""


def is_mixture(model: Model) -> bool:
    """Whether some tensors are experts: their inputs come with the tokens of all sequences mixed, so sequences must go one at a time."""
    return any(piece.expert >= 0 for pieces in model.pieces.values() for piece in pieces)


class Tapped(TorchFunctionMode):
    """`with Tapped(model, tap): model.module(ids)` tells `tap` of every use of an engine tensor."""

    def __init__(self, model: Model, tap: Tap) -> None:
        super().__init__()
        self._tap, self._uses = tap, _uses_by_address(model)
        if is_mixture(model):
            model.module.set_experts_implementation("eager")

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, then tell of it."""
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
