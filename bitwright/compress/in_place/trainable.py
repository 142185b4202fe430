"""Packed matrix whose real numbers can be trained: its scales and minima, and the factors of a pair of low rank; codes and positions stay.

The weights are a differentiable function of these numbers, and the numbers are stored in the bytes that the format has for them anyway. The scales
alone are what EfficientQAT trains at its end (Chen et al., ACL 2025) and PEQA (Kim et al., NeurIPS 2023); the pair is QLoRA's adapter (Dettmers et
al., NeurIPS 2023), which starts from what rounding lost, as in LoftQ (Li et al., ICLR 2024).
"""

import numpy as np
import torch
from torch import Tensor as Torch

from bitwright.compress.codecs.expansion import GROUPED, Grouped, factor_of, grouped_weights, spread_kept
from bitwright.compress.codecs.low_rank import packed_factor
from bitwright.compress.models.float_types import LARGEST_HALF
from bitwright.compress.models.source import Bytes
from bitwright.spaces import Format, IntegerFormat, RankFormat, SparseFormat

Trained = Grouped | SparseFormat | RankFormat


def is_trainable(form: Format) -> bool:
    """Return whether a format stores real numbers beside codes."""
    return isinstance(form, (*GROUPED, RankFormat)) or (isinstance(form, SparseFormat) and isinstance(form.base, IntegerFormat))


class TrainableMatrix:
    """Matrix of `shape` `(n_rows, n_columns)` from its `packed` bytes `(n_bytes,)`. `numbers` are its real numbers, float32 leaves of a graph."""

    def __init__(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> None:
        if not is_trainable(form):
            raise ValueError(f"{form.name} stores no real numbers beside codes")
        self._form, self._shape = form, shape
        stored, shared = torch.from_numpy(packed.copy()), form.shared_bytes(shape[1])
        self._rows = stored[: len(stored) - shared].view(shape[0], -1)
        self._halves = _places_of_halves(form, shape[1])
        self.numbers: list[Torch] = []
        if self._halves.start < self._halves.stop:
            self.numbers.append(self._rows[:, self._halves].clone().view(torch.float16).float())
        if isinstance(form, RankFormat):
            factors = self._rows[:, form.base_bytes(shape[1]) :], stored[len(stored) - shared :].view(shape[1], -1)
            self.numbers += [codes * scales for codes, scales in map(factor_of, factors)]
        for number in self.numbers:
            number.requires_grad_(True)

    def weights(self) -> Torch:
        """Return the weights `(n_rows, n_columns)` by the numbers as they are now."""
        form, n_columns = self._form, self._shape[1]
        if isinstance(form, GROUPED):
            return grouped_weights(self._rows, self.numbers[0], form, n_columns)
        if isinstance(form, SparseFormat) and isinstance(form.base, IntegerFormat):
            values = grouped_weights(self._rows, self.numbers[0], form.base, form.pattern.n_kept(n_columns))
            return spread_kept(values, self._rows[:, form.kept_bytes(n_columns) :], form.pattern, n_columns)
        product = self.numbers[-2] @ self.numbers[-1].T
        base = form.base if isinstance(form, RankFormat) else None
        return product if base is None else product + grouped_weights(self._rows, self.numbers[0], base, n_columns)

    @torch.no_grad()
    def packed(self) -> Bytes:
        """Return the bytes `(n_bytes,)` with the numbers as they are now, rounded to what the format stores."""
        rows, form = self._rows.clone(), self._form
        if self._halves.start < self._halves.stop:
            rows[:, self._halves] = self.numbers[0].clamp(-LARGEST_HALF, LARGEST_HALF).half().view(torch.uint8)
        if not isinstance(form, RankFormat):
            return rows.reshape(-1).numpy()
        left, right = (packed_factor(factor.numpy()) for factor in self.numbers[-2:])
        rows[:, form.base_bytes(self._shape[1]) :] = torch.from_numpy(left)
        return np.concatenate([rows.reshape(-1).numpy(), right.reshape(-1)])


def _places_of_halves(form: Format, n_columns: int) -> slice:
    """Return the bytes of a row that hold its half floats."""
    base, n_weights = form, n_columns
    if isinstance(form, SparseFormat):
        base, n_weights = form.base, form.pattern.n_kept(n_columns)
    if isinstance(form, RankFormat):
        if form.base is None:
            return slice(0, 0)
        base = form.base
    if not isinstance(base, GROUPED):
        raise ValueError(f"{form.name} has no groups with scales")
    return slice(-(-n_weights * base.bits // 8), base.size_bytes((1, n_weights)))
