"""Second moments of every layer's inputs: Σ w x xᵀ over tokens, half of GPTQ's Hessian (Frantar et al., ICLR 2023, section 3).

A token has the weight w of `token_weights.py`, so that errors count in proportion to what they are added to. The moments of a matrix are scaled to
the trace that they have if tokens count alike, so the mean of their diagonal is that of the importance matrix times the number of tokens. They take
four bytes for each pair of channels, so they are collected for a few tensors at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.objectives.text.forward_pass import run_forward
from bitwright.objectives.text.taps import Tap, Tapped, Use
from bitwright.objectives.text.token_weights import TokenWeights, token_weights
from bitwright.objectives.text.tokens import Tokens
from bitwright.progress import ignore
from bitwright.spaces import role_of

CACHE_BYTES = 1 << 30


class _Products(Tap):
    """Sums of products of some tensors' inputs `(n_experts, n_columns, n_columns)`, and how much the tokens' weights change their traces."""

    def __init__(self, model: Model, tensors: Sequence[str], weigh: TokenWeights) -> None:
        named = [tensor for tensor in model.tensors if tensor.name in tensors]
        self._n_experts = {tensor.name: tensor.n_matrices for tensor in named}
        self._roles = {tensor.name: role_of(tensor) for tensor in named}
        self._weigh = weigh
        self._sums: dict[str, Torch] = {}
        self._squares: dict[str, Torch] = {}
        self._last: tuple[Torch, Torch | None, Torch, Torch] | None = None

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        for use in uses:
            if use.tensor in self._n_experts and use.is_first:
                if use.tensor not in self._sums:
                    self._sums[use.tensor] = torch.zeros((self._n_experts[use.tensor], x.shape[-1], x.shape[-1]), device=x.device)
                    self._squares[use.tensor] = torch.zeros(self._n_experts[use.tensor], dtype=torch.float64, device=x.device)
                product, squares = self._product(x, y, self._roles[use.tensor])
                self._sums[use.tensor][use.group] += product
                self._squares[use.tensor][use.group] += squares

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Ignore a look-up, which has no inputs."""

    def moments(self) -> dict[str, NDArray[np.float32]]:
        """Return the sums as arrays, with the traces that they have if all tokens count alike."""
        found = {name: sums.cpu().numpy() for name, sums in self._sums.items()}
        for name, sums in found.items():
            traces = np.einsum("gcc->g", sums, dtype=np.float64)
            wanted = self._squares[name].cpu().numpy()
            sums *= np.divide(wanted, traces, out=np.ones_like(traces), where=traces > 0)[:, None, None].astype(np.float32)
        return found

    def _product(self, x: Torch, y: Torch, role: str) -> tuple[Torch, Torch]:
        """Return Σ w x xᵀ and Σ xᵀx of one batch, computed once for consecutive layers with the same input and weights."""
        weights = self._weigh(role, y)
        by = None if weights is None else y
        if self._last is None or self._last[0] is not x or self._last[1] is not by:
            rows = x.detach().reshape(-1, x.shape[-1]).float()
            squares = rows.square().sum(dtype=torch.float64)
            if weights is not None:
                rows = rows * weights.sqrt()[:, None]
            self._last = (x, by, rows.T @ rows, squares)
        return self._last[2:]


@contextmanager
def collect_moments(model: Model, tensors: Sequence[str], *, weigh: bool = True) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Collect the moments `(n_experts, n_columns, n_columns)` of `tensors` by name over the forward passes of the `with` block; filled when it ends.

    Tokens are weighed, or with `weigh` False count alike. A tensor that is never multiplied is left out.
    """
    found = dict[str, NDArray[np.float32]]()
    with token_weights(model, weigh=weigh) as weights:
        products = _Products(model, tensors, weights)
        with Tapped(model, products):
            yield found
    found |= products.moments()


class MomentsOfText(Mapping[str, NDArray[np.float32]]):
    """Second moments of every tensor on one text, collected on first access.

    The moments of the following tensors are collected in the same pass, as many as fit into `cache_bytes`, and earlier ones are discarded: access in
    the order of the tensors needs few passes. At each access the model must have the weights whose moments are wanted.
    """

    def __init__(self, model: Model, tokens: Tokens, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._model, self._tokens, self._cache_bytes = model, tokens, cache_bytes
        self._sizes = {t.name: 4 * t.n_matrices * t.shape[-1] ** 2 for t in model.tensors if t.name in model.pieces}
        self._gathered: tuple[str, ...] = ()
        self._found: dict[str, NDArray[np.float32]] = {}

    def __getitem__(self, tensor: str) -> NDArray[np.float32]:
        if tensor in self._sizes and tensor not in self._gathered:
            self._gather(tensor)
        return self._found[tensor]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._sizes if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _gather(self, first: str) -> None:
        self._found = {}  # frees the memory before the next ones are collected
        names = list(self._sizes)
        start = names.index(first)
        ends = np.cumsum([self._sizes[name] for name in names[start:]])
        self._gathered = tuple(names[start : start + max(1, int((ends <= self._cache_bytes).sum()))])
        with token_weights(self._model) as weights:
            products = _Products(self._model, self._gathered, weights)
            run_forward(self._model, self._tokens, ignore, tap=products)
        self._found = products.moments()
