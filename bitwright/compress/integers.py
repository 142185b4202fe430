"""Packed integers in groups: round to nearest between the least and the largest weight of each group of a row.

    scale = (max − min) / (2^bits − 1)      w ≈ min + scale · code,   code = round((w − min) / scale)

Asymmetric round-to-nearest as in the baselines of GPTQ (Frantar et al., ICLR 2023, section 4) and AMQ (Lee et al., EMNLP 2025). Scale and minimum are
rounded to half precision before the codes are found, so that decoding is exact. A row is its codes, bit after bit, then its scales, then its minima:
rows can be read one by one.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.codec import Codec, require_quantizable
from bitwright.compress.ggml import GgmlCodec
from bitwright.compress.source import Bytes, Floats
from bitwright.spaces import Format, IntegerFormat

_ROWS_BYTES = 1 << 24  # of unpacked bits held at once


class IntegerCodec(Codec):
    """The codec of `IntegerFormat`, and libggml's for the float formats beside it. Importance is not used."""

    def __init__(self) -> None:
        self._others = GgmlCodec()

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """See `Codec.encode`."""
        if not isinstance(form, IntegerFormat):
            return self._others.encode(weights, form, importance)
        require_quantizable(weights, form, importance)
        packed = [_encode_rows(weights[rows], form) for rows in _chunks(weights.shape, form)]
        return np.concatenate(packed).reshape(-1) if packed else np.empty(0, dtype=np.uint8)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """See `Codec.decode`."""
        if not isinstance(form, IntegerFormat):
            return self._others.decode(packed, form, shape)
        weights = np.empty(shape, dtype=np.float32)
        stored = packed.reshape(shape[0], -1)
        for rows in _chunks(shape, form):
            weights[rows] = _decode_rows(stored[rows], form, shape[1])
        return weights


def _chunks(shape: tuple[int, int], form: IntegerFormat) -> Iterator[slice]:
    step = max(1, _ROWS_BYTES // (form.bits * shape[1]))
    for start in range(0, shape[0], step):
        yield slice(start, start + step)


def _grouped(rows: Floats, form: IntegerFormat) -> Floats:
    """`(n_rows, n_groups, group)`; a short last group is filled with its own last weight, which moves neither its least nor its largest."""
    n_columns = rows.shape[1]
    n_groups, group = form.n_groups(n_columns), form.group or n_columns
    return np.pad(rows, ((0, 0), (0, n_groups * group - n_columns)), mode="edge").reshape(len(rows), n_groups, group)


def _encode_rows(rows: Floats, form: IntegerFormat) -> Bytes:
    """Packed rows `(n_rows, bytes of a row)`."""
    grouped = _grouped(np.asarray(rows, dtype=np.float32), form)
    minimum = grouped.min(axis=2).astype(np.float16)  # (n_rows, n_groups)
    # the range is halved first: it may be twice the largest half float
    scale = ((grouped.max(axis=2) / 2 - minimum.astype(np.float32) / 2) * (2 / (2**form.bits - 1))).astype(np.float16)
    step = scale.astype(np.float32)[..., None]
    steps = np.divide(grouped - minimum.astype(np.float32)[..., None], step, out=np.zeros_like(grouped), where=step > 0)
    codes = steps.round().clip(0, 2**form.bits - 1).astype(np.uint8).reshape(len(rows), -1)[:, : rows.shape[1]]
    bits = np.unpackbits(codes[..., None], axis=2)[..., 8 - form.bits :]  # (n_rows, n_columns, bits)
    return np.concatenate([np.packbits(bits.reshape(len(rows), -1), axis=1), scale.view(np.uint8), minimum.view(np.uint8)], axis=1)


def _decode_rows(stored: Bytes, form: IntegerFormat, n_columns: int) -> Floats:
    n_bytes, n_groups = -(-n_columns * form.bits // 8), form.n_groups(n_columns)
    bits = np.unpackbits(stored[:, :n_bytes], axis=1, count=n_columns * form.bits).reshape(len(stored), n_columns, form.bits)
    codes = np.packbits(bits, axis=2).reshape(len(stored), n_columns) >> (8 - form.bits)
    scale, minimum = (_halves(stored[:, n_bytes + 2 * n_groups * i :][:, : 2 * n_groups], form, n_columns) for i in range(2))
    return codes.astype(np.float32) * scale + minimum


def _halves(stored: Bytes, form: IntegerFormat, n_columns: int) -> NDArray[np.float32]:
    """One value for each weight `(n_rows, n_columns)`."""
    values = np.ascontiguousarray(stored).view(np.float16).astype(np.float32)
    return values.repeat(form.group or n_columns, axis=1)[:, :n_columns]
