"""What turns weights into bytes and back."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitwright.compress.models.source import Bytes, Floats
from bitwright.errors import ModelError, RunError
from bitwright.spaces import ByteFormat, Format, PackedFormat

LARGEST_HALF = float(np.finfo(np.float16).max)
_LARGEST_SQUARED = 2.0**60  # roundings square weights in float32
_LARGEST_BFLOAT16 = 255 * 2.0**120


class Codec(ABC):
    """A mirror pair: `decode(encode(w))` is what the engine computes with."""

    @abstractmethod
    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:
        """Bytes `(n_bytes,)` of `weights` `(n_rows, n_columns)`.

        `importance` is `(1, n_columns)`, the mean squared activation of each input channel, or `(0, n_columns)` where it is not known.

        Raises:
            ModelError: a weight is not finite.
        """

    @abstractmethod
    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """Float32 weights `(n_rows, n_columns)` of `packed` bytes."""

    def given(self, tensor: str, expert: int = 0) -> "Codec":  # noqa: ARG002
        """The codec of one tensor, or of one expert of a stack: itself, where it knows nothing of them but the importance."""
        return self


@dataclass(frozen=True, eq=False)
class MadeOnce(Codec):
    """What `codec` packed in the run of `folder`, which it is not to pack again: it would not make the same bytes."""

    codec: Codec
    folder: Path

    def encode(self, weights: Floats, form: Format, importance: Floats) -> Bytes:  # noqa: ARG002
        """See `Codec.encode`.

        Raises:
            RunError: always.
        """
        raise RunError(
            f"Codes that a text had a part in are made once, so a run must keep them; the levels of {self.folder} are not all there, or were "
            "changed: run the search again with another --out."
        )

    def decode(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Floats:
        """See `Codec.decode`."""
        return self.codec.decode(packed, form, shape)


def require_size(packed: Bytes, n_bytes: int, form: str) -> None:
    """Refuse bytes that are too many or too few before anything is read from them by their place.

    Raises:
        ModelError: they are not `n_bytes`.
    """
    if packed.nbytes != n_bytes:
        raise ModelError(f"A tensor in {form} must have the {n_bytes:,} bytes of its shape; this one has {packed.nbytes:,}: make the file again.")


def largest_weight(form: Format) -> float:
    """The largest magnitude that a format holds: its scales are half floats, but for those of checkpoints, which are bfloat16."""
    if isinstance(form, PackedFormat | ByteFormat):
        return _LARGEST_SQUARED
    return {"F32": float("inf"), "BF16": _LARGEST_BFLOAT16}.get(form.name, LARGEST_HALF)


def require_quantizable(weights: Floats, form: Format, importance: Floats) -> None:
    """Refuse what a quantizer would abort on or store as infinite.

    Raises:
        ModelError: weights or importance that are not finite, weights too large for half floats, or no importance where the format needs it.
    """
    largest = np.maximum(weights.max(initial=0), -weights.min(initial=0))  # NaN where there is one
    if not np.isfinite(largest):
        raise ModelError("Weights must be finite to be quantized; these are infinite or undefined in part: keep them as they are.")
    if largest > largest_weight(form):
        raise ModelError(
            f"Weights must be at most {largest_weight(form):.5g} to be stored as {form.name}; these go up to {largest:.3g}: choose another, "
            "or keep them as they are."
        )
    if form.needs_importance and not len(importance):
        raise ModelError(f"{form.name} is so coarse that it needs an importance matrix; this tensor has none: choose a finer format for it.")
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        raise ModelError("Importance must be finite and not negative; this matrix has other values: make it again.")
