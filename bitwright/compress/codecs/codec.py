"""Interface of codecs, and the checks of weights before they are quantized."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitwright.compress.models.source import Bytes, Floats
from bitwright.errors import ModelError, RunError
from bitwright.spaces import ByteFormat, Format, PackedFormat

LARGEST_HALF = float(np.finfo(np.float16).max)
_LARGEST_SQUARED = 2.0**60  # rounding methods square weights in float32
_LARGEST_BFLOAT16 = 255 * 2.0**120


class Codec(ABC):
    """Codec: `decode(encode(w))` are the weights that the engine computes with."""

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

    def for_tensor(self, tensor: str, expert: int = 0) -> "Codec":  # noqa: ARG002
        """Return the codec for one tensor, or for one expert of a stack; by default the codec itself, which depends on nothing but the importance."""
        return self


@dataclass(frozen=True, eq=False)
class MadeOnce(Codec):
    """Codec that only decodes codes that `codec` packed in the run of `folder`: they depend on calibration text and cannot be reproduced."""

    codec: Codec
    folder: Path

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:  # noqa: ARG002
        """See `Codec.encode`.

        Raises:
            RunError: always.
        """
        raise RunError(
            f"These codes depend on calibration text (GPTQ) and cannot be reproduced, so a run must keep them; packed tensors in "
            f"{self.folder} are missing or were changed: run the search again with another --out."
        )

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """See `Codec.decode`."""
        return self.codec.decode(packed, form, shape)


def require_size(packed: Bytes, n_bytes: int, form: str) -> None:
    """Require the size of packed bytes before they are sliced by position.

    Raises:
        ModelError: there are not `n_bytes`.
    """
    if packed.nbytes != n_bytes:
        raise ModelError(f"A tensor in {form} must have the {n_bytes:,} bytes of its shape; this one has {packed.nbytes:,}: make the file again.")


def largest_weight(form: Format) -> float:
    """Return the largest magnitude that a format can store; the limit is its scales, half floats or, in checkpoints, bfloat16."""
    if isinstance(form, PackedFormat | ByteFormat):
        return _LARGEST_SQUARED
    return {"F32": float("inf"), "BF16": _LARGEST_BFLOAT16}.get(form.name, LARGEST_HALF)


def require_quantizable(weights: Floats, form: Format, importance: Floats) -> None:
    """Require weights and importance that a quantizer neither aborts on nor stores as infinite.

    Raises:
        ModelError: weights or importance are not finite, weights are too large for the format, or importance is missing that the format needs.
    """
    largest = np.maximum(weights.max(initial=0), -weights.min(initial=0))  # NaN if any weight is
    if not np.isfinite(largest):
        raise ModelError("Weights must be finite to be quantized; some of these are infinite or NaN: leave the tensor unquantized (--keep).")
    if largest > largest_weight(form):
        raise ModelError(
            f"Weights must be at most {largest_weight(form):.5g} to be stored as {form.name}; these go up to {largest:.3g}: choose "
            "another format, or leave the tensor unquantized (--keep)."
        )
    if form.needs_importance and not len(importance):
        raise ModelError(f"{form.name} is so coarse that it needs an importance matrix; this tensor has none: choose a finer format for it.")
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ModelError("Importance must be finite and not negative; this matrix has other values: make it again.")
