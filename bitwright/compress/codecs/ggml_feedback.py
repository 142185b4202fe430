"""Error feedback for ggml's block formats: OBS/GPTQ on blocks that any llama.cpp decodes.

Optimal Brain Surgeon (Hassibi & Stork, NeurIPS 1993) as GPTQ runs it (Frantar et al., ICLR 2023, Algorithm 1), on grids whose scales libggml chooses.
With the second moments H of a layer's inputs and T the upper Cholesky factor of (H + λ I)⁻¹, blocks of columns are quantized one after another, those
of the largest activations first:

1. libggml quantizes the block as its weights are by now, with the importance diag((T_bbᵀ T_bb)⁻¹): the moments that remain once all later columns
   adapt. Scales are kept, codes are not.
2. Within the block each column is rounded to the nearest of its levels, and its error e = (w − q) / T_ii is subtracted from the columns after it as
   e · T_i,i: (equation 2).
3. The errors of the block are subtracted from all later blocks (equation 4).

Formats of a codebook, whose weights share their bits (`ggml_codes.py`), keep libggml's codes in place of step 2, and e solves
e · T_bb = w − q. The importance of step 1 is tried beside that of the calibration text, and every row keeps the one of the smaller Σ e²,
which is what the block adds to the quadratic error of the layer.

Differs from GPTQ in that scales are those of libggml's weighted search on the current weights, that the order is one of blocks, so that
the bytes are ordinary blocks, and that H is shrunk towards its diagonal by what sampling errs: the diagonal is multiplied by
1 + 3 · n_columns / n_tokens, since products of 1,536 inputs from 6,000 tokens hold for those tokens alone (the idea of Ledoit & Wolf,
Journal of Multivariate Analysis 2004; the factor was measured on held-out text).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codecs.codec import Codec, require_quantizable
from bitwright.compress.codecs.ggml import GgmlCodec
from bitwright.compress.codecs.ggml_codes import BlockCodes, block_codes
from bitwright.compress.codecs.rounding.feedback import factor
from bitwright.compress.codecs.rounding.gptq import Order, by_activation
from bitwright.compress.models.gguf.libggml import dequantize, quantize
from bitwright.compress.models.source import Bytes, Floats
from bitwright.spaces import BlockFormat, Format

_DAMPING = 0.01  # GPTQ's λ, in units of the mean of H's diagonal
_PLAIN = GgmlCodec()
_AT_ONCE = 32  # columns within a block between two products of matrices


@dataclass(frozen=True, eq=False)
class GgmlErrorFeedback(Codec):
    """Codec of ggml's formats with error feedback.

    `moments` maps each tensor to Σ x xᵀ over its tokens, `(n_experts, n_columns, n_columns)`; a tensor missing from it is quantized by libggml alone.
    `order` sorts the blocks by the sum of their activations. `shrinkage` · n_columns / n_tokens of the diagonal is added to it.
    """

    moments: Mapping[str, Floats]
    order: Order = by_activation
    shrinkage: float = 3.0
    tensor: str = ""
    expert: int = 0

    def serves(self, form: Format) -> bool:
        """Return whether `form` is one of ggml's."""
        return _PLAIN.serves(form)

    def largest_weight(self, form: Format) -> float:
        """Return the largest magnitude that `form` holds."""
        return _PLAIN.largest_weight(form)

    def for_tensor(self, tensor: str, expert: int = 0) -> "GgmlErrorFeedback":
        """Return the codec of one tensor, or of one expert of a stack, by its own moments."""
        return replace(self, tensor=tensor, expert=expert)

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Quantize `weights` `(n_rows, n_columns)` to bytes `(n_bytes,)`; `importance` is used where there are no moments.

        Raises:
            ModelError: a weight is not finite, or too large for `form`.
        """
        if not isinstance(form, BlockFormat) or form.block == 1 or self.tensor not in self.moments:
            return _PLAIN.encode(weights, form, importance)
        moments = self.moments[self.tensor][self.expert].astype(np.float64)
        require_quantizable(weights, form, moments.diagonal()[None].astype(np.float32), most=self.largest_weight(form))
        moments[np.diag_indices(len(moments))] *= 1 + self.shrinkage * len(moments) / _n_tokens(moments, importance)
        diagonal = moments.diagonal().reshape(-1, form.block)
        blocks = self.order(diagonal.sum(axis=1))
        columns = (blocks[:, None] * form.block + np.arange(form.block)).reshape(-1)
        t = factor(moments[np.ix_(columns, columns)], _DAMPING)
        work = _Blocks(form, np.ascontiguousarray(weights.T[columns], dtype=np.float32), t, self.largest_weight(form))
        packed = np.empty((len(weights), len(blocks), form.size_bytes((1, form.block))), dtype=np.uint8)
        for position, block in enumerate(blocks):
            packed[:, block] = work.quantized(position, diagonal[block])
        return packed.reshape(-1)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Dequantize `packed` bytes to float32 weights `(n_rows, n_columns)`."""
        return _PLAIN.decode(packed, form, shape)


def _n_tokens(moments: NDArray[np.float64], importance: Floats) -> float:
    """Return the number of tokens: `moments` are sums over them and the importance is a mean. One for each column where it is not known."""
    mean, total = float(importance.mean(dtype=np.float64)) if len(importance) else 0.0, float(moments.diagonal().mean())
    return max(total / mean, 1.0) if mean > 0 and total > 0 else float(len(moments))


@dataclass(frozen=True, eq=False)
class _Candidate:
    """Quantized block: bytes `(n_rows, block_bytes)` and errors `(block, n_rows)`."""

    packed: Bytes
    errors: Floats

    @cached_property
    def loss(self) -> Floats:
        """Quadratic error that each row adds, `(n_rows,)`."""
        squared: Floats = np.einsum("ij,ij->j", self.errors, self.errors)
        return squared


class _Blocks:
    """State of one matrix: `w` `(n_columns, n_rows)` are the current weights, in the order in which columns are quantized."""

    def __init__(self, form: BlockFormat, w: Floats, t: Floats, largest: float) -> None:
        self._form, self._w, self._t, self._largest = form, w, t, largest
        self._codes = block_codes(form)

    def quantized(self, position: int, diagonal: NDArray[np.float64]) -> Bytes:
        """Quantize the block at `position` and subtract its errors from those after it: bytes `(n_rows, block_bytes)`.

        `diagonal` `(block,)` are the moments of its columns.
        """
        start, stop = position * self._form.block, (position + 1) * self._form.block
        np.clip(self._w[start:stop], -self._largest, self._largest, out=self._w[start:stop])
        t = self._t[start:stop, start:stop]
        wide = t.astype(np.float64)
        remaining = np.asarray(np.linalg.inv(wide.T @ wide).diagonal(), dtype=np.float64)
        found = self._candidate(self._w[start:stop], t, remaining)
        if self._codes is None:
            found = _better(found, self._candidate(self._w[start:stop], t, diagonal))
        self._w[stop:] -= self._t[start:stop, stop:].T @ found.errors
        return found.packed

    def _candidate(self, current: Floats, t: Floats, importance: NDArray[np.float64]) -> _Candidate:
        rows = np.ascontiguousarray(current.T)
        packed = quantize(rows, self._form, _relative(importance)).reshape(len(rows), -1)
        if self._codes is not None:
            return _fed_back(current, packed, t, codes=self._codes)
        change = current - dequantize(packed.reshape(-1), self._form.name, (len(rows), self._form.block)).T
        return _Candidate(packed, np.asarray(np.linalg.inv(t.astype(np.float64)).T @ change, dtype=np.float32))


def _fed_back(current: Floats, packed: Bytes, t: Floats, *, codes: BlockCodes) -> _Candidate:
    """Round the columns of a block one after another to the levels of its scales in `packed`."""
    low, step = codes.grid(packed)
    w, errors = current.copy(), np.empty_like(current)
    found = np.empty(current.shape, dtype=np.uint8)
    n_columns = len(w)
    for start in range(0, n_columns, _AT_ONCE):
        stop = min(start + _AT_ONCE, n_columns)
        for i in range(start, stop):
            found[i], rounded = codes.nearest(w[i], low[i], step[i])
            errors[i] = (w[i] - rounded) / t[i, i]
            w[i + 1 : stop] -= t[i, i + 1 : stop, None] * errors[i]
        w[stop:] -= t[start:stop, stop:].T @ errors[start:stop]
    return _Candidate(codes.with_codes(packed, np.ascontiguousarray(found.T)), errors)


def _better(first: _Candidate, second: _Candidate) -> _Candidate:
    """Return the rows of either candidate that add less error."""
    is_second = second.loss < first.loss
    return _Candidate(np.where(is_second[:, None], second.packed, first.packed), np.where(is_second, second.errors, first.errors))


def _relative(importance: NDArray[np.float64]) -> Floats:
    """Scale importance `(n_columns,)` to a mean of 1, `(1, n_columns)`, with a floor: libggml aborts on blocks whose channels all have none."""
    mean = importance.mean()
    relative = np.maximum(importance / mean, 1e-5) if mean > 0 else np.ones(len(importance))
    return np.ascontiguousarray(relative[None], dtype=np.float32)
