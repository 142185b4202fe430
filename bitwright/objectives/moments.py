"""The second moments of every layer's inputs: Σ x xᵀ over tokens, what GPTQ makes errors good by (Frantar et al., ICLR 2023, section 3).

The importance matrix is their diagonal. They take four bytes for each pair of channels, so they are gathered for some tensors at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.objectives.taps import Tap, Tapped, Use


class _Products(Tap):
    """Sums of products of some tensors' inputs `(n_experts, n_columns, n_columns)`."""

    def __init__(self, model: Model, tensors: Sequence[str]) -> None:
        self._n_experts = {name: len(model.pieces[name]) for name in tensors}
        self.sums: dict[str, Torch] = {}
        self._last: tuple[Torch, Torch] | None = None

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:  # noqa: ARG002
        for use in uses:
            if use.tensor in self._n_experts:
                if use.tensor not in self.sums:
                    self.sums[use.tensor] = torch.zeros((self._n_experts[use.tensor], x.shape[-1], x.shape[-1]), device=x.device)
                self.sums[use.tensor][use.group] += self._product(x)

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """A look-up has no inputs."""

    def _product(self, x: Torch) -> Torch:
        """Σ x xᵀ of one batch; q, k and v in a row are given the same."""
        if self._last is None or self._last[0] is not x:
            rows = x.detach().reshape(-1, x.shape[-1]).float()
            self._last = (x, rows.T @ rows)
        return self._last[1]


@contextmanager
def gathered_moments(model: Model, tensors: Sequence[str]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Moments `(n_experts, n_columns, n_columns)` of `tensors` by name, filled when the block ends with what was run in it.

    A tensor that was not multiplied with anything is left out.
    """
    products, found = _Products(model, tensors), dict[str, NDArray[np.float32]]()
    with Tapped(model, products):
        yield found
    found |= {name: sums.cpu().numpy() for name, sums in products.sums.items()}
