"""NF4 (Dettmers et al., QLoRA, NeurIPS 2023): quantiles of a normal distribution as levels, times the largest magnitude of 32 weights."""

from dataclasses import dataclass, replace

import numpy as np

from bitwright.compress import Bytes, Codec, Floats, require_quantizable
from bitwright.engines import INTEGERS, NoEngine
from bitwright.spaces import BlockFormat, Format

NF4 = BlockFormat("NF4", block=32, block_bytes=18)  # 16 bytes of codes, then the scale in half precision
_BELOW = (-1, -0.69619280, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0)
_ABOVE = (0.07958030, 0.16093020, 0.24611230, 0.33791524, 0.44070983, 0.56261700, 0.72295684, 1)
LEVELS = np.array(_BELOW + _ABOVE, dtype=np.float32)


@dataclass(frozen=True)
class NormalFloatCodec(Codec):
    """The codec of `NF4`."""

    def serves(self, form: Format) -> bool:
        """Return whether `form` is NF4."""
        return form == NF4

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Quantize blocks of 32 weights to 4-bit codes and a half-float scale: bytes `(n_bytes,)`."""
        require_quantizable(weights, form, importance, most=self.largest_weight(form))
        groups = weights.reshape(-1, 32)
        scales = np.abs(groups).max(axis=1, keepdims=True).astype(np.float16)
        codes = np.searchsorted((LEVELS[1:] + LEVELS[:-1]) / 2, groups / np.where(scales > 0, scales, 1).astype(np.float32)).astype(np.uint8)
        return np.concatenate([codes[:, ::2] | codes[:, 1::2] << 4, scales.view(np.uint8)], axis=1).reshape(-1)

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Return level times scale, float32 `(n_rows, n_columns)`."""
        codes, scales = np.split(packed.reshape(-1, 18), [16], axis=1)
        levels = LEVELS[np.stack([codes & 15, codes >> 4], axis=-1)].reshape(-1, 32)
        return (levels * scales.copy().view(np.float16).astype(np.float32)).reshape(shape)


INTEGER_NF4 = NoEngine(replace(INTEGERS, name="integer-nf4", formats=(*INTEGERS.formats, NF4)), more=(NormalFloatCodec(),))
