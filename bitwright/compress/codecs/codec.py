"""Interface of codecs, and the checks of weights before they are quantized."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitwright.compress.models.float_types import LARGEST_HALF
from bitwright.compress.models.source import Bytes, Floats
from bitwright.errors import ModelError, RunError
from bitwright.spaces import Format

LARGEST_SQUARED = 2.0**60  # roundings square weights in float32


class Codec(ABC):
    """Codec: `decode(encode(w))` are the weights that the engine computes with."""

    @abstractmethod
    def serves(self, form: Format) -> bool:
        """Return whether the codec encodes and decodes `form`."""

    @abstractmethod
    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Quantize `weights` `(n_rows, n_columns)` to bytes `(n_bytes,)`.

        `importance` is `(1, n_columns)`, the mean squared activation of each input channel, or `(0, n_columns)` if unknown.

        Raises:
            ModelError: a weight is not finite.
        """

    @abstractmethod
    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Dequantize `packed` bytes to float32 weights `(n_rows, n_columns)`."""

    def largest_weight(self, form: Format) -> float:  # noqa: ARG002
        """Return the largest magnitude that `form` holds: that of its scales, half floats where nothing else is said."""
        return LARGEST_HALF

    def for_tensor(self, tensor: str, expert: int = 0) -> "Codec":  # noqa: ARG002
        """Return the codec of one tensor, or of one expert of a stack: itself, unless it depends on more than the importance."""
        return self


@dataclass(frozen=True, eq=False)
class DecodeOnlyCodec(Codec):
    """Codec that only decodes codes that `codec` packed in the run of `folder`: they depend on calibration text and cannot be reproduced."""

    codec: Codec
    folder: Path

    def serves(self, form: Format) -> bool:
        """Return whether `codec` decodes `form`."""
        return self.codec.serves(form)

    def largest_weight(self, form: Format) -> float:
        """Return the largest magnitude that `codec` holds in `form`."""
        return self.codec.largest_weight(form)

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:  # noqa: ARG002
        """Refuse to encode.

        Raises:
            RunError: always.
        """
        raise RunError(
            f"These codes depend on calibration text (GPTQ) and cannot be reproduced, so a run must keep them; packed tensors in "
            f"{self.folder} are missing or were changed: run the search again with another --out."
        )

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Dequantize with `codec` to float32 weights `(n_rows, n_columns)`."""
        return self.codec.decode(packed, form, shape)


def require_quantizable(weights: Floats, form: Format, importance: Floats, *, most: float) -> None:
    """Refuse what a quantizer would abort on or store as infinite: magnitudes above `most`.

    Raises:
        ModelError: weights or importance that are not finite, weights too large, or no importance where the format needs it.
    """
    largest = np.maximum(weights.max(initial=0), -weights.min(initial=0))  # NaN if any weight is
    if not np.isfinite(largest):
        raise ModelError("Weights must be finite to be quantized; these are infinite or undefined in part: keep them as they are.")
    if largest > most:
        raise ModelError(
            f"Weights must be at most {most:.5g} to be stored as {form.name}; these go up to {largest:.3g}: choose another, or keep them as they are."
        )
    if form.needs_importance and not len(importance):
        raise ModelError(f"{form.name} is so coarse that it needs an importance matrix; this tensor has none: choose a finer format for it.")
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ModelError("Importance must be finite and not negative; this matrix has other values: make it again.")
