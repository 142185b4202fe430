"""Codec of a packed matrix plus a pair of low rank, or of that pair alone.

Of all pairs the one is sought that loses least of the layer's output, ‖(W − Q − L R) X‖²: with the second moments H = C Cᵀ of the inputs, the
singular vectors of (W − Q) C, mapped back by C⁻¹ (the whitening of SVD-LLM, Wang et al., ICLR 2025; SLiM and CALDERA weigh what rounding lost
likewise). Where only the importance is known, H is its diagonal. Q and the pair are made in turn, each of what the other leaves (CALDERA,
Algorithm 1; LQ-LoRA, Guo et al., ICLR 2024), and the best of all turns is kept. Differs from them in that both factors are rounded to 8 bits before
the next turn, the left one after a least-squares fit to the rounded right one.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress.codecs.codec import Codec, require_quantizable
from bitwright.compress.codecs.expansion import expanded_rows
from bitwright.compress.codecs.integers import IntegerCodec
from bitwright.compress.codecs.rounding.rounding import Rounding, RoundToNearest, known_importance
from bitwright.compress.models.float_types import LARGEST_HALF
from bitwright.compress.models.source import Bytes, Floats, require_size
from bitwright.spaces import Format, RankFormat

_TURNS = 3
_DAMPING = 0.01
_MOST = 127


@dataclass(frozen=True, eq=False)
class _Pair:
    """Product of a pair `(n_rows, n_columns)`, and the bytes of its factors: `left` `(n_rows, rank + 2)`, `right` `(n_columns, rank + 2)`."""

    product: Floats
    left: Bytes
    right: Bytes


@dataclass(frozen=True, eq=False)
class LowRankCodec(Codec):
    """Codec of `RankFormat`."""

    rounding: Rounding = field(default_factory=RoundToNearest)

    def for_tensor(self, tensor: str, expert: int = 0) -> "LowRankCodec":
        """Return the codec with the rounding of one tensor, or of one expert of a stack."""
        return replace(self, rounding=self.rounding.for_tensor(tensor, expert))

    def serves(self, form: Format) -> bool:
        """Return whether `form` has a pair of low rank."""
        return isinstance(form, RankFormat)

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Pack `weights` `(n_rows, n_columns)` as a matrix and a pair; return the rows and then what they share, as bytes `(n_bytes,)`."""
        form = _ranked(form)
        require_quantizable(weights, form, importance, most=self.largest_weight(form))
        weights, known = np.ascontiguousarray(weights, dtype=np.float32), known_importance(importance, weights.shape[1])
        factor = np.asarray(np.linalg.cholesky(_damped(self.rounding.second_moments(known))), dtype=np.float64)
        best, least, left = np.empty(0, dtype=np.uint8), np.inf, weights
        for _ in range(_TURNS):
            base, rows = self._base(left, form, importance)
            pair = _pair(weights - base, factor, form.rank)
            left = weights - pair.product
            loss = float((((left - base) @ factor) ** 2).sum())
            if loss < least:
                best, least = np.concatenate([np.concatenate([rows, pair.left], axis=1).reshape(-1), pair.right.reshape(-1)]), loss
            if form.base is None:
                break
        return best

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Return the matrix plus the product of the pair, float32 `(n_rows, n_columns)`."""
        require_size(packed, _ranked(form).size_bytes(shape), form.name)
        weights: Floats = expanded_rows(torch.tensor(packed), form, shape, slice(None)).numpy()
        return weights

    def _base(self, weights: Floats, form: RankFormat, importance: Floats) -> tuple[Floats, Bytes]:
        """Return the packed matrix, dequantized and as bytes `(n_rows, bytes of a row)`; zeros and no bytes where there is none."""
        if form.base is None:
            return np.zeros_like(weights), np.empty((len(weights), 0), dtype=np.uint8)
        codec = IntegerCodec(self.rounding)
        limit = np.float32(codec.largest_weight(form.base))
        packed = codec.encode(weights.clip(-limit, limit), form.base, importance)
        return codec.decode(packed, form.base, (weights.shape[0], weights.shape[1])), packed.reshape(len(weights), -1)


def _damped(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return second moments, scaled to a mean of 1 and damped; the identity if all are zero."""
    mean = moments.diagonal().mean()
    scaled = moments / mean if 0 < mean < np.inf else np.zeros_like(moments)
    return scaled + (_DAMPING if mean > 0 else 1) * np.eye(len(moments))


def _pair(lost: Floats, factor: NDArray[np.float64], rank: int) -> _Pair:
    """Return the pair that restores most of what was `lost` `(n_rows, n_columns)`, in the norm of the `factor` C `(n_columns, n_columns)`."""
    white = lost @ factor
    squares, vectors = np.linalg.eigh(white.T @ white)
    share = np.maximum(squares[: -rank - 1 : -1], 0) ** 0.25  # the root of a singular value, for either factor
    right = np.linalg.solve(factor.T, vectors[:, : -rank - 1 : -1] * share)  # (Vᵀ C⁻¹)ᵀ, (n_columns, rank)
    of_columns, right_bytes = _rounded(right.astype(np.float32))
    left = np.linalg.lstsq(factor.T @ of_columns, white.T, rcond=None)[0].T
    of_rows, left_bytes = _rounded(left.astype(np.float32))
    return _Pair(of_rows @ of_columns.T, left_bytes, right_bytes)


def _rounded(rows: Floats) -> tuple[Floats, Bytes]:
    """Round rows `(n, rank)` to 8 bits with a scale in half precision for each: values, and bytes `(n, rank + 2)`, codes before the scale."""
    scale = (np.abs(rows).max(axis=1, keepdims=True) / _MOST).clip(max=LARGEST_HALF).astype(np.float16)
    wide = scale.astype(np.float32)
    steps = np.divide(rows, wide, out=np.zeros_like(rows), where=wide > 0)
    codes = np.rint(steps).clip(-_MOST, _MOST).astype(np.int8)
    values: Floats = codes.astype(np.float32) * wide
    return values, np.concatenate([codes.view(np.uint8), scale.view(np.uint8)], axis=1)


def packed_factor(rows: Floats) -> Bytes:
    """Return a factor `(n, rank)` as the bytes that a format stores, `(n, rank + 2)`."""
    return _rounded(rows)[1]


def _ranked(form: Format) -> RankFormat:
    if not isinstance(form, RankFormat):
        raise ValueError(f"{form.name} is no format with a pair of low rank")
    return form
