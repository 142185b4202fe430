"""Source with other weights of the same function: maps of channels between the matrices of another source."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from bitwright.compress.models.channels.channel_map import ChannelMap, ChannelOrder, channel_map
from bitwright.compress.models.channels.junctions import Junction
from bitwright.compress.models.float_types import float_bytes
from bitwright.compress.models.source import Bytes, Floats, Source
from bitwright.errors import PlanError
from bitwright.spaces import Tensor


@dataclass(frozen=True, eq=False)
class Reparametrization:
    """Maps of channels at some junctions of a model, each changed by the map of that place."""

    maps: tuple[tuple[Junction, ChannelMap], ...]

    def forward(self, name: str, weights: Floats) -> Floats:
        """Return the new weights `(n_rows, n_columns)` of the tensor called `name`, of what they were; a vector is one row."""
        for made in self._made.get(name, ()):
            weights = _rows(weights, made.made)
        for read in self._read.get(name, ()):
            weights = read.read(weights)
        return weights

    def backward(self, name: str, weights: Floats) -> Floats:
        """Return the weights that compute what the new ones do among the others as they were, the inverse of `forward`."""
        for read in self._read.get(name, ()):
            weights = read.unread(weights)
        for made in self._made.get(name, ()):
            weights = _rows(weights, made.unmade)
        return weights

    def changes(self, name: str) -> bool:
        """Return whether a tensor has other weights."""
        return name in self._made or name in self._read

    def squares(self, name: str, means: Floats) -> Floats:
        """Return the mean squared inputs `(n_groups, n_columns)` of a matrix, of what they were."""
        for read in self._read.get(name, ()):
            means = read.squares(means)
        return means

    def moments(self, name: str, products: Floats) -> Floats:
        """Return the second moments `(n_groups, n_columns, n_columns)` of the inputs of a matrix, of what they were."""
        for read in self._read.get(name, ()):
            products = read.moments(products)
        return products

    def matrices(self) -> dict[str, Floats]:
        """Return the maps as matrices by name, as `pin_weights` keeps them."""
        return {f"{junction.name} {by.kind}": by.values for junction, by in self.maps}

    @cached_property
    def _made(self) -> Mapping[str, tuple[ChannelMap, ...]]:
        return _by_tensor((name, by) for at, by in self.maps for name in (*at.makers, *(at.gates if isinstance(by, ChannelOrder) else ())))

    @cached_property
    def _read(self) -> Mapping[str, tuple[ChannelMap, ...]]:
        return _by_tensor((name, by.repeated(at.n_shared, at.width)) for at, by in self.maps for name in at.readers)


def _by_tensor(pairs: Iterator[tuple[str, ChannelMap]]) -> dict[str, tuple[ChannelMap, ...]]:
    found: dict[str, tuple[ChannelMap, ...]] = {}
    for name, by in pairs:
        found[name] = (*found.get(name, ()), by)
    return found


def _rows(weights: Floats, change: Callable[[Floats], Floats]) -> Floats:
    """Apply a change of channels to the rows of a matrix; the one row of a vector has its channels along it."""
    return change(weights) if weights.shape[0] == 1 else np.ascontiguousarray(change(np.ascontiguousarray(weights.T)).T)


class ReparametrizedSource(Source):
    """Source `whole` with other weights of the same function, by steps one after another; everything else, the fingerprint included, is that of
    `whole`.

    A changed tensor is stored in the type that it had, rounded to it.
    """

    def __init__(self, whole: Source, steps: Sequence[Reparametrization]) -> None:
        self.name, self.architecture, self.metadata = whole.name, whole.architecture, whole.metadata
        self.fingerprint, self.settings, self.tensors = whole.fingerprint, whole.settings, whole.tensors
        self.whole, self._steps = whole, tuple(steps)

    def read(self, tensor: Tensor) -> Floats:
        """Read the new weights as float32 `(n_rows, n_columns)`."""
        weights = self.whole.read(tensor)
        for step in self._steps:
            weights = step.forward(tensor.name, weights)
        return weights

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the stored bytes `(n_bytes,)`: those of `whole`, or the new weights rounded to their type."""
        return float_bytes(tensor.stored, torch.from_numpy(self.read(tensor))) if self.changes(tensor.name) else self.whole.stored(tensor)

    def changes(self, name: str) -> bool:
        """Return whether a tensor has other weights than in `whole`."""
        return any(step.changes(name) for step in self._steps)

    def restored(self, name: str, weights: Floats) -> Floats:
        """Return the weights `(n_rows, n_columns)` that compute in `whole` what `weights` compute here."""
        for step in reversed(self._steps):
            weights = step.backward(name, weights)
        return weights

    def squares(self, importance: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return an importance matrix, `(n_groups, n_columns)` by tensor, of the inputs here, of that of `whole`."""
        found = dict(importance)
        for step in self._steps:
            found = {name: step.squares(name, means) for name, means in found.items()}
        return found

    def moments(self, name: str, products: Floats) -> Floats:
        """Return second moments `(n_groups, n_columns, n_columns)` of the inputs of a matrix here, of those in `whole`."""
        for step in self._steps:
            products = step.moments(name, products)
        return products


def reparametrization(matrices: Mapping[str, Floats], places: Sequence[Junction]) -> Reparametrization:
    """Return the maps that `Reparametrization.matrices` wrote, for the junctions of their model.

    Raises:
        PlanError: the model has no such junction, or a map does not fit there.
    """
    by_name, maps = {junction.name: junction for junction in places}, list[tuple[Junction, ChannelMap]]()
    for key, values in matrices.items():
        name, _, kind = key.partition(" ")
        by, at = channel_map(kind, values), by_name.get(name)
        if at is None or by.n_channels != at.n_channels or (isinstance(by, ChannelOrder) and at.kind != "up-down"):
            raise PlanError(f"The steps of a plan must fit its model; there is no place for the {kind} of '{name}': make the plan again.")
        maps.append((at, by))
    return Reparametrization(tuple(maps))
