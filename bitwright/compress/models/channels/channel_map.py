"""Invertible maps of the channels between two matrices: another order, scales, rotations of heads.

Channels x that one matrix makes and another reads may be any A⁻¹ x, if the other's weights are W A: the product is the same. A map gives both sides,
so that they cannot disagree.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.models.source import Floats
from bitwright.errors import PlanError

_LARGEST_INTEGER = 1 << 24  # up to which float32 has every integer


@dataclass(frozen=True, eq=False)
class ChannelMap(ABC):
    """Invertible map A of channels. `values` are those that a file keeps it as, a float32 matrix; `kind` is its name there."""

    values: Floats
    kind: ClassVar[str]

    @property
    @abstractmethod
    def n_channels(self) -> int:
        """Number of channels."""

    @abstractmethod
    def made(self, channels: Floats) -> Floats:
        """Return A⁻¹ x of channels x along the last axis `(…, n_channels)`."""

    @abstractmethod
    def unmade(self, channels: Floats) -> Floats:
        """Return A x, the inverse of `made`."""

    def read(self, weights: Floats) -> Floats:
        """Return the weights W A `(…, n_channels)` that read channels as `made` gives them; an orthogonal A takes both alike."""
        return self.made(weights)

    def unread(self, weights: Floats) -> Floats:
        """Return W of W A, the inverse of `read`."""
        return self.unmade(weights)

    def squares(self, means: Floats) -> Floats:
        """Return the mean squares `(…, n_channels)` of channels as `made` gives them, of what they were; exact where no channels are mixed."""
        roots: Floats = np.sqrt(means)
        return self.made(roots) ** 2

    def moments(self, products: Floats) -> Floats:
        """Return the second moments `(…, n_channels, n_channels)` of channels as `made` gives them, of what they were."""
        return np.ascontiguousarray(self.made(self.made(products).swapaxes(-1, -2)).swapaxes(-1, -2))

    @abstractmethod
    def repeated(self, n: int, width: int) -> "ChannelMap":
        """Return the map of `n` copies of each head of `width` channels, one after another, as query heads share those of values."""


class ChannelOrder(ChannelMap):
    """Order of channels: `values` `(1, n_channels)` has the old place of each."""

    kind = "order"

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return int(self.values.shape[-1])

    @property
    def _places(self) -> NDArray[np.int64]:
        places: NDArray[np.int64] = self.values[0].astype(np.int64)
        return places

    def made(self, channels: Floats) -> Floats:
        """Return the channels in the new order."""
        return np.ascontiguousarray(channels[..., self._places])

    def unmade(self, channels: Floats) -> Floats:
        """Return the channels in the old order."""
        return np.ascontiguousarray(channels[..., np.argsort(self._places)])

    def repeated(self, n: int, width: int) -> "ChannelOrder":
        """Refuse: heads keep their places.

        Raises:
            ValueError: `n` is not 1.
        """
        if n != 1:
            raise ValueError(f"Channels of {width} that {n} heads share are not put in another order")
        return self


class ChannelScales(ChannelMap):
    """Scales of channels, `values` `(1, n_channels)`: channels are divided by them, and weights that read them multiplied."""

    kind = "scale"

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return int(self.values.shape[-1])

    def made(self, channels: Floats) -> Floats:
        """Return the channels divided by their scales."""
        return np.ascontiguousarray(channels / self.values[0])

    def unmade(self, channels: Floats) -> Floats:
        """Return the channels multiplied by their scales."""
        return np.ascontiguousarray(channels * self.values[0])

    def read(self, weights: Floats) -> Floats:
        """Return the weights multiplied by the scales."""
        return self.unmade(weights)

    def unread(self, weights: Floats) -> Floats:
        """Return the weights divided by the scales."""
        return self.made(weights)

    def repeated(self, n: int, width: int) -> "ChannelScales":
        """Return the scales of `n` copies of each head of `width` channels."""
        heads = np.repeat(self.values.reshape(-1, width), n, axis=0)
        return ChannelScales(np.ascontiguousarray(heads.reshape(1, -1)))


class HeadRotations(ChannelMap):
    """Rotations of heads, `values` `(n_channels, width)`: an orthogonal matrix `(width, width)` for each head, one below another."""

    kind = "rotation"

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return int(self.values.shape[0])

    @property
    def _heads(self) -> Floats:
        width = self.values.shape[1]
        return self.values.reshape(-1, width, width)

    def made(self, channels: Floats) -> Floats:
        """Return the rotated channels."""
        return self._turned(channels, self._heads)

    def unmade(self, channels: Floats) -> Floats:
        """Return the channels rotated back."""
        return self._turned(channels, self._heads.swapaxes(1, 2))

    def squares(self, means: Floats) -> Floats:
        """Return the mean squares of rotated channels, as of channels that are not correlated."""
        return self._turned(means, self._heads**2)

    def repeated(self, n: int, width: int) -> "HeadRotations":
        """Return the rotations of `n` copies of each head."""
        return HeadRotations(np.ascontiguousarray(np.repeat(self.values.reshape(-1, width, width), n, axis=0).reshape(-1, width)))

    def _turned(self, channels: Floats, heads: Floats) -> Floats:
        of_heads = channels.reshape(*channels.shape[:-1], *heads.shape[:2])
        turned: Floats = np.einsum("...hi,hoi->...ho", of_heads, heads, optimize=True)
        return np.ascontiguousarray(turned.reshape(channels.shape), dtype=np.float32)


def channel_map(kind: str, values: Floats) -> ChannelMap:
    """Return the map of that `kind` with its `values` as a file has them.

    Raises:
        PlanError: they are none of such a map.
    """
    if kind == ChannelScales.kind and len(values) == 1 and np.isfinite(values).all() and (values > 0).all():
        return ChannelScales(values)
    if kind == ChannelOrder.kind and len(values) == 1 and np.array_equal(np.sort(values[0]), np.arange(values.shape[1])):
        return ChannelOrder(values)
    if kind == HeadRotations.kind and len(values) % values.shape[1] == 0:
        found = HeadRotations(values)
        if np.allclose(found.unmade(found.made(values.T)), values.T, atol=1e-4):
            return found
    raise PlanError(f"A step must keep orders, scales above 0 or rotations of channels; its file has a '{kind}' that is none: make the plan again.")


def channel_order(places: NDArray[np.int64]) -> ChannelOrder:
    """Return the order of channels whose old places `(n_channels,)` are given.

    Raises:
        ValueError: there are more than a file keeps exactly.
    """
    if len(places) > _LARGEST_INTEGER:
        raise ValueError(f"{len(places):,} channels are more than float32 counts")
    return ChannelOrder(np.ascontiguousarray(places[None], dtype=np.float32))
