"""Intercept every use of an engine tensor in a forward pass, in whatever module it occurs.

transformers applies weights through `torch.nn.functional.linear` and `embedding`, in `nn.Linear` as well as expert by expert in a mixture of
experts; a few modules multiply by a matrix from the right (`addmm` in GPT-2, `@` in gpt-oss, `bmm` over all experts in Llama 4). A tap recognises the
weight by its memory address, so no module is patched and no layer name is needed.
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

from bitwright.compress import Address, Indices, Model, ParameterSlice, address, address_within, indices


@dataclass(frozen=True, eq=False)
class Use:
    """Consecutive rows of an engine tensor, located in the weight W of one `linear` or `embedding` call.

    `group` is the expert in a stack of experts, else 0, and `is_first` says whether the rows are the first of that matrix, which other uses may
    continue. `first_row` is the first engine row, `order` `(n_rows,)` the row of W for each engine row, and `piece` the slice of a parameter that W
    is cut from.
    """

    tensor: str
    group: int
    is_first: bool
    first_row: int
    order: NDArray[np.int64]
    piece: ParameterSlice

    @property
    def columns(self) -> Indices | None:
        """Columns of W in the engine's order, None for all."""
        return self.piece.columns


class Tap(ABC):
    """Observer of every use of an engine tensor."""

    @abstractmethod
    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        """Observe `y = x Wᵀ`: `x` `(..., n_columns)`, `y` `(..., n_rows of W)`. Where `uses` have some of the columns of W, `x` has these columns
        only, in their order, and `y` is the whole product.
        """

    @abstractmethod
    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Observe a look-up of the rows `ids` of W, with the result `y` `(*ids.shape, n_columns)`."""


def is_mixture(model: Model) -> bool:
    """Return whether some tensors are experts: their inputs mix the tokens of all sequences, so sequences must be run one at a time."""
    return any(piece.expert >= 0 for pieces in model.pieces.values() for piece in pieces)


_FROM_THE_RIGHT = (torch.addmm, torch.mm, torch.matmul, Torch.matmul, Torch.__matmul__)


class Tapped(TorchFunctionMode):
    """Context in which `tap` observes every use of an engine tensor: `with Tapped(model, tap): model.module(ids)`."""

    def __init__(self, model: Model, tap: Tap) -> None:
        super().__init__()
        self._tap, self._uses = tap, _uses_by_address(model)
        if is_mixture(model):
            model.module.set_experts_implementation("eager")

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, then report it to the tap."""
        if func is torch.bmm and self._of_right(args[1][0]):
            return torch.stack([self._multiplied(torch.mm, x, weight) for x, weight in zip(*args, strict=True)])
        if func in _FROM_THE_RIGHT and self._of_right(args[-1]):
            return self._multiplied(func, *args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if func is torch.nn.functional.linear:
            self._observe(self._of(args[1]), args[0], result)
        elif func is torch.nn.functional.embedding and self._of(args[1]):
            self._tap.embedding(self._of(args[1]), args[0], result)
            return result.clone() if result.is_leaf and result.requires_grad else result  # some models scale it in place
        return result

    def _of(self, weight: Torch) -> list[Use]:
        """Return the uses of a matrix `(n_outputs, n_inputs)`."""
        return self._uses.get(address(weight), [])

    def _of_right(self, factor: Torch) -> list[Use]:
        """Return the uses of a matrix `(n_inputs, n_outputs)`, the right factor of a product; a vector has none."""
        return self._of(factor.mT) if factor.dim() > 1 else []

    def _multiplied(self, func: Callable[..., Any], *args: Torch, **named: Any) -> Torch:
        """Run a product whose last two factors are x and a matrix `(n_inputs, n_outputs)`, and report it."""
        result: Torch = func(*args, **named)
        self._observe(self._of_right(args[-1]), args[-2], result)
        return result

    def _observe(self, uses: list[Use], x: Torch, y: Torch) -> None:
        for columns in dict.fromkeys(use.columns for use in uses):
            of_columns = [use for use in uses if use.columns == columns]
            self._tap.linear(of_columns, x if columns is None else x[..., torch.from_numpy(indices(columns)).to(x.device)], y)


def _uses_by_address(model: Model) -> dict[Address, list[Use]]:
    parameters = dict(model.module.named_parameters())
    found: dict[Address, list[Use]] = {}
    for tensor in (tensor for tensor in model.tensors if tensor.name in model.pieces):
        n_rows, first_row = tensor.shape[-2], 0
        for piece in model.pieces[tensor.name]:
            group, row = divmod(first_row, n_rows)
            use = Use(tensor.name, group, row == 0, first_row, piece.order(), piece)
            found.setdefault(address_within(parameters[piece.parameter], piece.matrix), []).append(use)
            first_row += piece.n_rows
    return found
