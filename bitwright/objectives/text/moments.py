"""The second moments of every layer's inputs: Σ x xᵀ over tokens, what GPTQ makes errors good by (Frantar et al., ICLR 2023, section 3).

The importance matrix is their diagonal. They take four bytes for each pair of channels, so they are gathered for some tensors at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.objectives.text.taps import Tap, Tapped, Use
from bitwright.objectives.text.tokens import Tokens

KEPT_BYTES = 1 << 30
_SEQUENCES_AT_ONCE = 8


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


class MomentsOfText(Mapping[str, NDArray[np.float32]]):
    """The moments of every tensor on one text, gathered when they are first asked for: those of the tensors that follow come with them, as far as
    `kept_bytes` allow, and the earlier ones are forgotten. So whoever goes through the tensors in their order reads the text few times.

    The model must have the weights whose moments are wanted whenever one is asked for.
    """

    def __init__(self, model: Model, tokens: Tokens, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._model, self._tokens, self._kept_bytes = model, tokens, kept_bytes
        self._sizes = {t.name: 4 * len(model.pieces[t.name]) * t.shape[-1] ** 2 for t in model.tensors if t.name in model.pieces}
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
        self._found = {}  # before the next ones take its place
        names = list(self._sizes)
        start = names.index(first)
        ends = np.cumsum([self._sizes[name] for name in names[start:]])
        self._gathered = tuple(names[start : start + max(1, int((ends <= self._kept_bytes).sum()))])
        with torch.no_grad(), gathered_moments(self._model, self._gathered) as self._found:
            for ids in self._tokens.batches(_SEQUENCES_AT_ONCE):
                self._model.module(torch.from_numpy(ids).to(self._model.device), use_cache=False)
