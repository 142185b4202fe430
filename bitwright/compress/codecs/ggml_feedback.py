"""Error feedback for ggml's block formats: OBS/GPTQ on blocks that any llama.cpp decodes.

Optimal Brain Surgeon (Hassibi & Stork, NeurIPS 1993) as GPTQ runs it (Frantar et al., ICLR 2023, Algorithm 1), on grids whose scales libggml chooses.
With the second moments H of a layer's inputs and U upper triangular with U Uᵀ = H + λ I, changes d = w − q of a row's weights cost Σ (Uᵀ d)ᵢ².
Blocks of columns are quantized one after another, those of the largest activations first:

1. libggml quantizes the block as its weights are wanted by now, w_b + U_bb⁻ᵀ · U_{<b,b}ᵀ d_{<b}: the best ones given the changes before it, if
   all later columns adapt. The importance is diag(U_bb U_bbᵀ), the moments that then remain. Scales are kept, codes are not.
2. Within the block each column is rounded to the nearest of its levels to w_i + (Σ_{j<i} U_ji d_j) / U_ii.

That is GPTQ (its T is U⁻¹, equations 2 and 4) with sums over what came before in place of subtractions from what comes after, so that nothing is
inverted but the small triangles of blocks.

Formats of a codebook, whose weights share their bits (`ggml_codes.py`), keep libggml's codes in place of step 2. The importance of step 1 is tried
beside that of the calibration text, and every row keeps the one that adds less to its quadratic error.

Differs from GPTQ in that scales are those of libggml's weighted search on the current weights, that the order is one of blocks, so that
the bytes are ordinary blocks, and that H is shrunk towards its diagonal by what sampling errs: the diagonal is multiplied by
1 + 3 · n_columns / n_tokens, since products of 1,536 inputs from 6,000 tokens hold for those tokens alone (the idea of Ledoit & Wolf,
Journal of Multivariate Analysis 2004; the factor was measured on held-out text).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import strtri

from bitwright.compress.codecs.codec import Codec, require_quantizable
from bitwright.compress.codecs.ggml import GgmlCodec
from bitwright.compress.codecs.ggml_codes import BlockCodes, ColumnRounder, block_codes
from bitwright.compress.codecs.rounding.feedback import square_root
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
        moments = self.moments[self.tensor][self.expert]
        if not moments.any():  # an expert that no token reached, whose importance is the mean of the others'
            return _PLAIN.encode(weights, form, importance)
        diagonal = moments.diagonal().astype(np.float64)
        require_quantizable(weights, form, diagonal[None].astype(np.float32), most=self.largest_weight(form))
        diagonal *= 1 + self.shrinkage * len(moments) / _n_tokens(diagonal, importance)
        by_block = diagonal.reshape(-1, form.block)
        blocks = self.order(by_block.sum(axis=1))
        columns = (blocks[:, None] * form.block + np.arange(form.block)).reshape(-1)
        root = _root(moments, diagonal, columns)
        work = _Blocks(form, np.ascontiguousarray(weights.T[columns], dtype=np.float32), root, self.largest_weight(form))
        packed = np.empty((len(weights), len(blocks), form.size_bytes((1, form.block))), dtype=np.uint8)
        for position, block in enumerate(blocks):
            packed[:, block] = work.quantized(position, by_block[block])
        return packed.reshape(-1)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Dequantize `packed` bytes to float32 weights `(n_rows, n_columns)`."""
        return _PLAIN.decode(packed, form, shape)


def _n_tokens(diagonal: NDArray[np.float64], importance: Floats) -> float:
    """Return the number of tokens: moments, whose `diagonal` is given, are sums over them and the importance is a mean. One for each column where it
    is not known.
    """
    mean, total = float(importance.mean(dtype=np.float64)) if len(importance) else 0.0, float(diagonal.mean())
    return max(total / mean, 1.0) if mean > 0 and total > 0 else float(len(diagonal))


def _root(moments: Floats, diagonal: NDArray[np.float64], columns: NDArray[np.int64]) -> Floats:
    """Return U of the moments `(n_columns, n_columns)` with another `diagonal`, in the order `columns`.

    In float32, as the moments are: the diagonal is larger than theirs by far more than what rounding changes, so that all stays positive definite.
    """
    ordered: Floats = np.take(moments[columns], columns, axis=1)
    ordered[np.diag_indices(len(ordered))] = diagonal[columns]
    return square_root(ordered, _DAMPING)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """Quantized block: bytes `(n_rows, block_bytes)` and the weights that they stand for, `(block, n_rows)`."""

    packed: Bytes
    levels: Floats


class _Blocks:
    """State of one matrix: weights `(n_columns, n_rows)` in the order in which columns are quantized, and U of the moments in that order."""

    def __init__(self, form: BlockFormat, weights: Floats, u: Floats, largest: float) -> None:
        self._form, self._weights, self._u, self._largest = form, weights, u, largest
        self._changes = np.empty_like(weights)
        self._codes = block_codes(form)

    def quantized(self, position: int, diagonal: NDArray[np.float64]) -> Bytes:
        """Quantize the block at `position` by the changes before it: bytes `(n_rows, block_bytes)`.

        `diagonal` `(block,)` are the moments of its columns.
        """
        start, stop = position * self._form.block, (position + 1) * self._form.block
        block, u = self._weights[start:stop], self._u[start:stop, start:stop]
        before = self._u[:start, start:stop].T @ self._changes[:start]
        wanted = block + strtri(u)[0].T @ before
        np.clip(wanted, -self._largest, self._largest, out=wanted)
        remaining = np.einsum("ij,ij->i", u, u, dtype=np.float64)
        found = self._by_ggml(wanted, remaining)
        if self._codes is not None:
            found = _fed_back(block, found.packed, before, u=u, codes=self._codes)
        else:
            found = _better(found, self._by_ggml(wanted, diagonal), wanted, u)
        np.subtract(block, found.levels, out=self._changes[start:stop])
        return found.packed

    def _by_ggml(self, wanted: Floats, importance: NDArray[np.float64]) -> _Candidate:
        rows = np.ascontiguousarray(wanted.T)
        packed = quantize(rows, self._form, _relative(importance))
        return _Candidate(packed.reshape(len(rows), -1), dequantize(packed, self._form.name, rows.shape).T)


def _fed_back(weights: Floats, packed: Bytes, before: Floats, *, u: Floats, codes: BlockCodes) -> _Candidate:
    """Round the columns of a block one after another to the levels of its scales in `packed`; `before` `(block, n_rows)` are U_{<b,b}ᵀ d_{<b}."""
    rounder, levels, changes = ColumnRounder(codes, packed), np.empty_like(weights), np.empty_like(weights)
    n_columns, per_root = len(weights), 1 / u.diagonal()
    for start in range(0, n_columns, _AT_ONCE):
        stop = min(start + _AT_ONCE, n_columns)
        before[start:stop] += u[:start, start:stop].T @ changes[:start]
        for i in range(start, stop):
            wanted = u[start:i, i] @ changes[start:i]
            wanted += before[i]
            wanted *= per_root[i]
            wanted += weights[i]
            levels[i] = rounder.rounded(i, wanted)
            np.subtract(weights[i], levels[i], out=changes[i])
    return _Candidate(codes.with_codes(packed, rounder.codes), levels)


def _better(first: _Candidate, second: _Candidate, wanted: Floats, u: Floats) -> _Candidate:
    """Return the rows of either candidate that add less error to the layer than the `wanted` weights `(block, n_rows)` would."""
    errors = [np.square(u.T @ (wanted - candidate.levels)).sum(axis=0) for candidate in (first, second)]
    is_second = errors[1] < errors[0]
    return _Candidate(np.where(is_second[:, None], second.packed, first.packed), np.where(is_second, second.levels, first.levels))


def _relative(importance: NDArray[np.float64]) -> Floats:
    """Scale importance `(n_columns,)` to a mean of 1, `(1, n_columns)`, with a floor: libggml aborts on blocks whose channels all have none."""
    mean = importance.mean()
    relative = np.maximum(importance / mean, 1e-5) if mean > 0 else np.ones(len(importance))
    return np.ascontiguousarray(relative[None], dtype=np.float32)
