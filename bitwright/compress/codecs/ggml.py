"""Codec of ggml's block formats and floats: the quantizers of libggml itself."""

import numpy as np

from bitwright.compress.codecs.codec import Codec, require_quantizable
from bitwright.compress.models.float_types import LARGEST_HALF
from bitwright.compress.models.gguf.libggml import dequantize, quantize
from bitwright.compress.models.source import Bytes, Floats
from bitwright.spaces import BlockFormat, Format

_LARGEST = {"F32": float("inf"), "BF16": 255 * 2.0**120}


class GgmlCodec(Codec):
    """Codec of libggml's own quantizers."""

    def serves(self, form: Format) -> bool:
        """Return whether `form` is a block format of ggml."""
        return isinstance(form, BlockFormat)

    def largest_weight(self, form: Format) -> float:
        """Return the largest magnitude that the scales of `form` hold."""
        return _LARGEST.get(form.name, LARGEST_HALF)

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Quantize `weights` `(n_rows, n_columns)` with libggml, by their importance, to bytes `(n_bytes,)`."""
        require_quantizable(weights, form, importance, most=self.largest_weight(form))
        return quantize(weights, form, _positive(importance))

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Dequantize with libggml to float32 weights `(n_rows, n_columns)`."""
        return dequantize(packed, form.name, shape)


def _positive(importance: Floats) -> Floats:
    """Clamp importance from below: libggml aborts on blocks whose channels all have none."""
    mean = importance.mean(axis=1, keepdims=True, dtype=np.float64)
    floored = np.where(mean > 0, np.maximum(importance, 1e-5 * mean), 1.0)  # float64
    # Only ratios matter and a power of two is exact, but products of very small or large values leave the range of float32.
    return np.ascontiguousarray(np.ldexp(floored, -np.frexp(mean)[1]), dtype=np.float32)
