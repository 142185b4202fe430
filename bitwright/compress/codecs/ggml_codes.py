"""Codes of ggml's blocks: where the bits of every weight's code lie in a block, and which level each code stands for.

A block holds scales, and for every weight a code of a few bits. With the scales fixed, the levels of a weight are
`low + (high - low) · t`, where `low` and `high` are its values for the code of zeros and that of ones, and `t` depends on the
format alone. Bits and levels are found by decoding blocks with libggml, once per format and process. A format whose weights
share their bits (IQ1 to IQ3, whose codes are entries of a codebook of several weights) has no such codes.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.models.gguf.libggml import dequantize, quantize
from bitwright.compress.models.source import Bytes, Floats
from bitwright.spaces import BlockFormat

_PROBES = 4  # random blocks; a scale that a bit changes shows in at least one of them
_SAMPLES = 256  # blocks that show the least and the largest level that libggml writes
_FEWEST_BITS = 2


@dataclass(frozen=True, eq=False)
class BlockCodes:
    """Codes of a block format: `bits` `(block, n_bits)` are the positions of a weight's bits in the block, in ascending significance (bit 0 is the
    lowest of the first byte); `levels` `(n_codes,)` is `t` of every code, 0 for the code of zeros and 1 for that of ones, and NaN for
    a code that libggml itself never writes (-128 of Q8_0), since kernels may rely on that.
    """

    form: BlockFormat
    bits: NDArray[np.int64]
    levels: Floats

    def grid(self, packed: Bytes) -> tuple[Floats, Floats]:
        """Return the level of the code of zeros, and the step from it to that of ones, each `(block, n_blocks)`."""
        low, high = self.bounds(packed)
        return np.ascontiguousarray(low.T), np.ascontiguousarray((high - low).T)

    def bounds(self, packed: Bytes) -> tuple[Floats, Floats]:
        """Return the values `(n_blocks, block)` of the code of zeros and of that of ones, given blocks `(n_blocks, block_bytes)`."""
        return self._decoded(packed & ~self._mask), self._decoded(packed | self._mask)

    def with_codes(self, packed: Bytes, codes: NDArray[np.uint8]) -> Bytes:
        """Return blocks `(n_blocks, block_bytes)` with the scales of `packed` and other `codes` `(n_blocks, block)`."""
        bits = np.unpackbits(packed, axis=1, bitorder="little")
        for k in range(self.bits.shape[1]):
            bits[:, self.bits[:, k]] = codes >> k & 1
        return np.packbits(bits, axis=1, bitorder="little")

    def codes_of(self, packed: Bytes) -> NDArray[np.uint8]:
        """Return the codes `(n_blocks, block)` of blocks `(n_blocks, block_bytes)`: the inverse of `with_codes`."""
        bits = np.unpackbits(packed, axis=1, bitorder="little")[:, self.bits]  # (n_blocks, block, n_bits)
        codes: NDArray[np.uint8] = (bits << np.arange(self.bits.shape[1], dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
        return codes

    @cached_property
    def _mask(self) -> NDArray[np.uint8]:
        """Bits of all codes, `(block_bytes,)`."""
        mask = np.zeros(8 * self.form.size_bytes((1, self.form.block)), dtype=np.uint8)
        mask[self.bits.reshape(-1)] = 1
        return np.packbits(mask, bitorder="little")

    @cached_property
    def ascending(self) -> NDArray[np.uint8]:
        """Codes that libggml writes, in the order of their levels."""
        order = np.argsort(self.levels)
        return order[np.isfinite(self.levels[order])].astype(np.uint8)

    @cached_property
    def levels_per_step(self) -> np.float32:
        """Levels from that of the code of zeros to that of ones, 0 where levels are not evenly spaced."""
        levels = self.levels[self.ascending]
        steps = np.diff(levels)
        even = np.allclose(steps, steps.mean(), rtol=1e-4)
        return np.float32(len(steps) / (levels[-1] - levels[0]) if even else 0)

    def _decoded(self, packed: Bytes) -> Floats:
        return dequantize(np.ascontiguousarray(packed).reshape(-1), self.form.name, (len(packed), self.form.block))


class ColumnRounder:
    """Rounding of weights, column after column, to the levels that the scales of blocks `(n_blocks, block_bytes)` give.

    A level differs from libggml's in the last bits of float32 at most. A matrix has thousands of columns, so each takes few operations of numpy, in
    place where they can be.
    """

    def __init__(self, codes: BlockCodes, packed: Bytes) -> None:
        low, step = codes.grid(packed)
        self._ascending, self._levels, self._width = codes.ascending, codes.levels[codes.ascending], codes.levels_per_step
        if self._width:
            low, step = low + self._levels[0] * step, step / self._width
        self._low, self._step = low, step
        self._per_step = np.divide(np.float32(1), step, out=np.zeros_like(step), where=step != 0)
        self._middles: Floats = np.asarray((self._levels[1:] + self._levels[:-1]) / 2, dtype=np.float32)
        self._at = np.zeros(low.shape, dtype=np.float32)  # places of the chosen levels among those of the format

    @property
    def codes(self) -> NDArray[np.uint8]:
        """Codes `(n_blocks, block)` of the columns as they were rounded."""
        found: NDArray[np.uint8] = self._ascending[self._at.T.astype(np.intp)]
        return found

    def rounded(self, i: int, weights: Floats) -> Floats:
        """Return the nearest levels for the `weights` `(n_blocks,)` of column `i`, and keep their codes."""
        at = np.subtract(weights, self._low[i], out=self._at[i])
        at *= self._per_step[i]
        if self._width:
            np.rint(at, out=at)
            np.maximum(at, np.float32(0), out=at)
            nearest: Floats = np.minimum(at, np.float32(len(self._levels) - 1), out=at) * self._step[i]
        else:
            places = np.searchsorted(self._middles, at)
            at[:] = places
            nearest = self._levels[places] * self._step[i]
        nearest += self._low[i]
        return nearest


@cache
def block_codes(form: BlockFormat) -> BlockCodes | None:
    """Return the codes of `form`, None where its weights have none of their own."""
    n_bytes = form.size_bytes((1, form.block))
    blocks = _normal_blocks(form, _PROBES)
    flips = np.packbits(np.eye(8 * n_bytes, dtype=np.uint8), axis=1, bitorder="little")  # (n_bits, n_bytes)
    changed = np.zeros((8 * n_bytes, form.block), dtype=bool)
    for block in blocks:
        decoded = dequantize((block ^ flips).reshape(-1), form.name, (8 * n_bytes, form.block))
        changed |= decoded != dequantize(block, form.name, (1, form.block))
    own = changed.sum(axis=1) == 1
    owners = changed[own].argmax(axis=1)
    per_weight = np.bincount(owners, minlength=form.block)
    if per_weight.min() != per_weight.max() or per_weight[0] < _FEWEST_BITS:
        return None
    bits = np.flatnonzero(own)[np.argsort(owners, kind="stable")].reshape(form.block, -1)
    zeros = BlockCodes(form, bits, np.zeros(1, dtype=np.float32))
    bits = _by_significance(zeros, blocks[:1])
    return _with_levels(BlockCodes(form, bits, zeros.levels), blocks[:1])


def _normal_blocks(form: BlockFormat, n_blocks: int) -> Bytes:
    """Quantize normal weights, `(n_blocks, block_bytes)`."""
    weights = np.random.default_rng(0).normal(size=(n_blocks, form.block)).astype(np.float32)
    return quantize(weights, form, np.ones((1, form.block), dtype=np.float32)).reshape(n_blocks, -1)


def _by_significance(codes: BlockCodes, block: Bytes) -> NDArray[np.int64]:
    """Sort the bits of every weight by how much they change the code of zeros."""
    n_bits = codes.bits.shape[1]
    of_bit = [codes._decoded(codes.with_codes(block, np.full((1, codes.form.block), 1 << k, dtype=np.uint8)))[0] for k in range(n_bits)]
    change = np.abs(np.stack(of_bit, axis=1) - codes.bounds(block)[0][0][:, None])  # (block, n_bits)
    sorted_bits: NDArray[np.int64] = np.take_along_axis(codes.bits, np.argsort(change, axis=1), axis=1)
    return sorted_bits


def _with_levels(codes: BlockCodes, block: Bytes) -> BlockCodes | None:
    """Return the codes with their levels, None where those of two weights of a block differ."""
    n_codes = 1 << codes.bits.shape[1]
    low, high = (bound[0] for bound in codes.bounds(block))
    decoded = [codes._decoded(codes.with_codes(block, np.full((1, codes.form.block), code, dtype=np.uint8)))[0] for code in range(n_codes)]
    held = high != low
    levels = (np.stack(decoded)[:, held] - low[held]) / (high - low)[held]  # (n_codes, n_held)
    if not np.allclose(levels, levels[:, :1], atol=1e-4):
        return None
    # means over weights have less rounding in them than any one weight's
    means = levels.mean(axis=1, dtype=np.float64).astype(np.float32)
    used = means[codes.codes_of(_normal_blocks(codes.form, _SAMPLES))]
    return BlockCodes(codes.form, codes.bits, np.where((means >= used.min()) & (means <= used.max()), means, np.float32(np.nan)))
