"""Grids: the levels that a format of integers can represent, equidistant within a group of weights, with scale and offset as the format stores them.

    level k  =  offset + scale · k,   k = 0 … 2^bits − 1

A grid defines the representable levels; a `Rounding` chooses scale and offset of each group and a code for each weight; a codec packs them. So every
rounding method serves every format. Arrays of groups have any shape `(...)`, those of weights `(..., group)`.

Sources: scale and minimum in half precision as in GPTQ (Frantar et al., ICLR 2023) and AMQ (Lee et al., EMNLP 2025); integer zero points and the
symmetric range as in compressed-tensors (`calculate_qparams`, `dequantize`): zero is always a level.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress.models.source import Floats
from bitwright.spaces import LARGEST_FLOAT8

Codes = NDArray[np.uint8]
_SHORT, _HALF = np.float32(1 / 16), np.float32(1 / 2)
Index = slice | NDArray[np.int64] | tuple[slice | int | NDArray[np.int64], ...]


@dataclass(frozen=True, eq=False)
class Placement:
    """Placement of the levels of groups: scale and offset as stored, all `(...)` float32.

    `anchor` is stored beside the scale: the minimum, or the zero point. `offset` is the value of code 0.
    """

    scale: Floats
    anchor: Floats
    offset: Floats

    @property
    def parts(self) -> tuple[Floats, Floats, Floats]:
        """Return scale, anchor and offset."""
        return self.scale, self.anchor, self.offset

    def where(self, chosen: NDArray[np.bool_], other: "Placement") -> "Placement":
        """Return this placement for the groups that are `chosen` `(...)`, and the `other` for the rest."""
        return Placement(*(np.where(chosen, mine, theirs) for mine, theirs in zip(self.parts, other.parts, strict=True)))

    def __getitem__(self, index: Index) -> "Placement":
        """Return the placement of some groups."""
        return Placement(self.scale[index], self.anchor[index], self.offset[index])


class Grid(ABC):
    """Levels that a group may have."""

    bits: int

    @property
    def n_levels(self) -> int:
        """Number of levels; codes go from 0 to one below it."""
        return 1 << self.bits

    @abstractmethod
    def between(self, low: Floats, high: Floats) -> Placement:
        """Return the placement of levels from `low` to `high` `(...)`, rounded to what the format stores."""

    def covering(self, groups: Floats) -> Placement:
        """Return the placement `(...)` for groups `(..., group)`: from the least to the largest weight."""
        return self.between(groups.min(axis=-1), groups.max(axis=-1))

    @abstractmethod
    def moved(self, placement: Placement, offset: Floats) -> Placement:
        """Return the placement with the same scale and the offset nearest to `offset` `(...)` that the format stores."""

    @abstractmethod
    def values(self, codes: Codes, placement: Placement) -> Floats:
        """Dequantize codes to float32 `(..., group)`."""

    @abstractmethod
    def directions(self, codes: Codes, placement: Placement) -> tuple[Floats, ...]:
        """Return the derivatives of the values `(..., group)` by the scale, and by the minimum where one is stored."""

    @abstractmethod
    def stepped(self, placement: Placement, steps: Sequence[Floats]) -> Placement:
        """Return the placement with `steps` `(...)` added to scale, and minimum where one is stored, rounded to what the format stores."""

    def nearest(self, weights: Floats, placement: Placement) -> Codes:
        """Return the code `(..., group)` of the level nearest to each weight, 0 if all levels coincide."""
        scale = placement.scale[..., None]
        steps = np.divide(weights - placement.offset[..., None], scale, out=np.zeros(weights.shape, dtype=np.float32), where=scale > 0)
        codes: Codes = np.rint(steps, out=steps).clip(0, self.n_levels - 1, out=steps).astype(np.uint8)
        return codes


@dataclass(frozen=True)
class MinimumGrid(Grid):
    """Grid with scale and minimum in half precision (asymmetric)."""

    bits: int

    def between(self, low: Floats, high: Floats) -> Placement:
        """Return levels from `low` to `high` `(...)`: minimum and step rounded to half floats."""
        minimum = _rounded(low, torch.float16)
        scale = _scale(_step(minimum, high, self.n_levels), self.n_levels, torch.float16, largest=np.maximum(np.abs(low), np.abs(high)))
        return Placement(scale, minimum, minimum)

    def moved(self, placement: Placement, offset: Floats) -> Placement:
        """Return the placement with its minimum at `offset` `(...)`, rounded to a half float."""
        minimum = _rounded(offset, torch.float16)
        return Placement(placement.scale, minimum, minimum)

    def directions(self, codes: Codes, placement: Placement) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return the codes, by the scale, and ones, by the minimum."""
        return codes.astype(np.float32), np.ones(codes.shape, dtype=np.float32)

    def stepped(self, placement: Placement, steps: Sequence[Floats]) -> Placement:
        """Return scale and minimum changed, rounded to half floats."""
        minimum = _rounded(placement.anchor + steps[1], torch.float16)
        return Placement(_rounded(placement.scale + steps[0], torch.float16), minimum, minimum)

    def values(self, codes: Codes, placement: Placement) -> Floats:
        """Return code times scale plus minimum, float32 `(..., group)`."""
        values: Floats = codes.astype(np.float32) * placement.scale[..., None] + placement.anchor[..., None]
        return values


@dataclass(frozen=True)
class ZeroPointGrid(Grid):
    """Grid with a scale of type `dtype` and an integer zero point: zero is always a level."""

    bits: int
    dtype: torch.dtype

    def between(self, low: Floats, high: Floats) -> Placement:
        """Return levels from `low` to `high` `(...)`, a range widened to contain zero."""
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        scale = _scale(_step(low, high, self.n_levels), self.n_levels, self.dtype, largest=np.maximum(-low, high))
        return self._at(scale, low)

    def moved(self, placement: Placement, offset: Floats) -> Placement:
        """Return the placement with the zero point nearest to `offset` `(...)`."""
        return self._at(placement.scale, offset)

    def directions(self, codes: Codes, placement: Placement) -> tuple[Floats, ...]:
        """Return code minus zero point, by the scale."""
        return (codes.astype(np.float32) - placement.anchor[..., None],)

    def stepped(self, placement: Placement, steps: Sequence[Floats]) -> Placement:
        """Return the scale changed, and the same zero point."""
        scale = _rounded(placement.scale + steps[0], self.dtype)
        return Placement(scale, placement.anchor, -placement.anchor * scale)

    def values(self, codes: Codes, placement: Placement) -> Floats:
        """Return code minus zero point, times scale, float32 `(..., group)`."""
        return _products(codes, placement)

    def _at(self, scale: Floats, offset: Floats) -> Placement:
        zero = np.divide(-offset, scale, out=np.zeros_like(scale), where=scale > 0).round().clip(0, self.n_levels - 1)
        return Placement(scale, zero, -zero * scale)


@dataclass(frozen=True)
class SymmetricGrid(Grid):
    """Symmetric grid: a scale of type `dtype`; the code 2^(bits − 1) is zero, so there is one more level below zero than above."""

    bits: int
    dtype: torch.dtype

    def between(self, low: Floats, high: Floats) -> Placement:
        """Return levels from `-m` to `m`, `m` the larger magnitude of `low` and `high` `(...)`."""
        largest = np.maximum(np.abs(low), np.abs(high))
        scale = _scale(largest * np.float32(2 / (self.n_levels - 1)), self.n_levels, self.dtype, largest=largest)
        return self.scaled(scale)

    def scaled(self, scale: Floats) -> Placement:
        """Return the placement of groups with the scales `(...)`."""
        zero = np.full_like(scale, self.n_levels // 2)
        return Placement(scale, zero, -zero * scale)

    def moved(self, placement: Placement, offset: Floats) -> Placement:  # noqa: ARG002
        """Return `placement`: symmetric levels cannot move."""
        return placement

    def directions(self, codes: Codes, placement: Placement) -> tuple[Floats, ...]:
        """Return code minus zero point, by the scale."""
        return (codes.astype(np.float32) - placement.anchor[..., None],)

    def stepped(self, placement: Placement, steps: Sequence[Floats]) -> Placement:
        """Return the scale changed, and the same zero point."""
        scale = _rounded(placement.scale + steps[0], self.dtype)
        return Placement(scale, placement.anchor, -placement.anchor * scale)

    def values(self, codes: Codes, placement: Placement) -> Floats:
        """Return code minus zero point, times scale, float32 `(..., group)`."""
        return _products(codes, placement)


@dataclass(frozen=True)
class SignGrid(Grid):
    """Grid of the two levels −s and s, the scale s in half precision."""

    bits = 1

    def between(self, low: Floats, high: Floats) -> Placement:
        """Return the levels `-m` and `m`, `m` half the distance of `low` and `high` `(...)`."""
        return self.scaled(_rounded(_HALF * high - _HALF * low, torch.float16))

    def covering(self, groups: Floats) -> Placement:
        """Return the levels at the mean magnitude of groups `(..., group)`, which has the least squared error (XNOR-Net, equation 6)."""
        return self.scaled(_rounded(np.abs(groups).mean(axis=-1), torch.float16))

    def scaled(self, scale: Floats) -> Placement:
        """Return the placement of groups with the scales `(...)`."""
        return Placement(2 * scale, scale, -scale)

    def moved(self, placement: Placement, offset: Floats) -> Placement:  # noqa: ARG002
        """Return `placement`: the levels are symmetric."""
        return placement

    def directions(self, codes: Codes, placement: Placement) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return the signs, by s."""
        return (2 * codes.astype(np.float32) - 1,)

    def stepped(self, placement: Placement, steps: Sequence[Floats]) -> Placement:
        """Return s changed."""
        return self.scaled(_rounded(placement.anchor + steps[0], torch.float16))

    def values(self, codes: Codes, placement: Placement) -> Floats:
        """Return −s for code 0 and s for code 1, float32 `(..., group)`."""
        values: Floats = (2 * codes.astype(np.float32) - 1) * placement.anchor[..., None]
        return values


@dataclass(frozen=True)
class Float8Grid(Grid):
    """Grid of 8-bit floats (E4M3, no infinities, `torch.float8_e4m3fn`) with a scale of type `dtype`; a code is the byte of such a float.

    The levels are not at equal distances, so none can be moved, and code 0 is zero.
    """

    dtype: torch.dtype
    bits = 8

    def between(self, low: Floats, high: Floats) -> Placement:
        """Return FP8 levels from `-m` to `m`, `m` the larger magnitude of `low` and `high` `(...)`."""
        return self.scaled(_rounded(np.maximum(np.abs(low), np.abs(high)) * np.float32(1 / LARGEST_FLOAT8), self.dtype))

    def scaled(self, scale: Floats) -> Placement:
        """Return the placement of groups with the scales `(...)`."""
        return Placement(scale, np.zeros_like(scale), np.zeros_like(scale))

    def moved(self, placement: Placement, offset: Floats) -> Placement:  # noqa: ARG002
        """Return `placement`: FP8 levels cannot move."""
        return placement

    def nearest(self, weights: Floats, placement: Placement) -> Codes:
        """Return the bytes `(..., group)` of the FP8 numbers nearest to the scaled weights, clamped to the largest; zeros if the scale is 0."""
        scale = placement.scale[..., None]
        scaled = np.divide(weights, scale, out=np.zeros(weights.shape, dtype=np.float32), where=scale > 0)
        held = torch.from_numpy(scaled).clamp_(-LARGEST_FLOAT8, LARGEST_FLOAT8)
        codes: Codes = held.to(torch.float8_e4m3fn).view(torch.uint8).numpy()
        return codes

    def directions(self, codes: Codes, placement: Placement) -> tuple[Floats, ...]:  # noqa: ARG002
        """Return the FP8 numbers, by the scale."""
        return (_floats(codes),)

    def stepped(self, placement: Placement, steps: Sequence[Floats]) -> Placement:
        """Return the scale changed."""
        return self.scaled(_rounded(placement.scale + steps[0], self.dtype))

    def values(self, codes: Codes, placement: Placement) -> Floats:
        """Return FP8 number times scale, float32 `(..., group)`."""
        return _floats(codes) * placement.scale[..., None]


def _floats(codes: Codes) -> Floats:
    """Return the FP8 numbers of bytes, float32."""
    floats: Floats = torch.from_numpy(np.ascontiguousarray(codes)).view(torch.float8_e4m3fn).float().numpy()
    return floats


def _step(low: Floats, high: Floats, n_levels: int) -> Floats:
    """Return the distance between levels; the range is halved first, since it may be twice the largest half float."""
    return np.asarray((high / 2 - low / 2) * (2 / (n_levels - 1)), dtype=np.float32)


def _scale(step: Floats, n_levels: int, dtype: torch.dtype, *, largest: Floats) -> Floats:
    """Round the scale to `dtype`: to the nearest value, or to the next larger one if the levels would end short by more than a step and by a large
    part of the `largest` magnitude.
    """
    scale, smallest = _rounded(step, dtype), np.float32(torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps)
    short = (step - scale) * np.float32(n_levels - 1)
    return np.where((short > scale) & (short > _SHORT * largest), scale + smallest, scale)


def _products(codes: Codes, placement: Placement) -> Floats:
    """Return scale × (code − zero point)."""
    products: Floats = (codes.astype(np.float32) - placement.anchor[..., None]) * placement.scale[..., None]
    return products


def _rounded(values: Floats, dtype: torch.dtype) -> Floats:
    """Round to another float type, and return float32."""
    contiguous = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    rounded: Floats = contiguous.to(dtype).float().numpy()
    return rounded
