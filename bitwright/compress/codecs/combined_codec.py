"""Codec made of several: each format is encoded and decoded by the first that serves it."""

from dataclasses import dataclass

import numpy as np

from bitwright.compress.codecs.byte_rows import ByteCodec
from bitwright.compress.codecs.codec import Codec
from bitwright.compress.codecs.ggml import GgmlCodec
from bitwright.compress.codecs.integers import IntegerCodec
from bitwright.compress.codecs.low_rank import LowRankCodec
from bitwright.compress.codecs.packed_integers import PackedCodec
from bitwright.compress.codecs.rounding.rounding import Rounding, RoundToNearest
from bitwright.compress.codecs.sparse import SparseCodec
from bitwright.compress.models.source import Bytes, Floats
from bitwright.spaces import Absence, Format

_NEAREST = RoundToNearest()


class AbsenceCodec(Codec):
    """Pruned weights: no bytes, decoded to zeros."""

    def serves(self, form: Format) -> bool:
        """Return whether `form` stores nothing."""
        return isinstance(form, Absence)

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:  # noqa: ARG002
        """Return no bytes, `(0,)`."""
        return np.empty(0, dtype=np.uint8)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:  # noqa: ARG002
        """Return zeros `(n_rows, n_columns)`."""
        return np.zeros(shape, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class CombinedCodec(Codec):
    """Codec made of the `codecs`, asked in turn.

    Raises:
        ValueError: from each method, none of them serves the format.
    """

    codecs: tuple[Codec, ...]

    def serves(self, form: Format) -> bool:
        """Return whether any of the codecs serves `form`."""
        return any(codec.serves(form) for codec in self.codecs)

    def largest_weight(self, form: Format) -> float:
        """Return the largest magnitude that the codec of `form` holds."""
        return self._serving(form).largest_weight(form)

    def for_tensor(self, tensor: str, expert: int = 0) -> "CombinedCodec":
        """Return the same combination with every codec for one tensor, or for one expert of a stack."""
        return CombinedCodec(tuple(codec.for_tensor(tensor, expert) for codec in self.codecs))

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Quantize `weights` `(n_rows, n_columns)` with the codec of `form` to bytes `(n_bytes,)`."""
        return self._serving(form).encode(weights, form, importance)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Dequantize with the codec of `form` to float32 weights `(n_rows, n_columns)`."""
        return self._serving(form).decode(packed, form, shape)

    def _serving(self, form: Format) -> Codec:
        for codec in self.codecs:
            if codec.serves(form):
                return codec
        raise ValueError(f"no codec of {len(self.codecs)} serves {form.name}")


def integer_codec(rounding: Rounding = _NEAREST) -> CombinedCodec:
    """Return the codec of native formats: integers in groups, with fewer weights or a pair of low rank too, floats, and what is pruned."""
    return CombinedCodec((AbsenceCodec(), IntegerCodec(rounding), SparseCodec(rounding), LowRankCodec(rounding), GgmlCodec()))


def packed_codec(rounding: Rounding = _NEAREST) -> CombinedCodec:
    """Return the codec of compressed-tensors checkpoints: packed integers, bytes, and floats beside them."""
    return CombinedCodec((PackedCodec(rounding), ByteCodec(rounding), GgmlCodec()))
