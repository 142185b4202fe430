"""Memory of a run, whatever the engine: what is asked of it, every byte by its use, and what a memory leaves to the file."""

import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bitwright.compress import Dimensions, Source, dimensions
from bitwright.ranges import CONTEXT, PARALLEL
from bitwright.spaces import CACHE_FORMATS, DEFAULT_CACHE_TYPE, CacheTypes, cache_format

KEYS = "keys"


@dataclass(frozen=True)
class Serving:
    """Request to the engine: `parallel` sequences of `context` tokens each, keys and values kept in the formats named.

    Raises:
        UserError: a count below one, or a format that no cache has.
    """

    context: int
    parallel: int = 1
    keys: str = DEFAULT_CACHE_TYPE
    values: str = DEFAULT_CACHE_TYPE

    def __post_init__(self) -> None:
        CONTEXT.require(self.context)
        PARALLEL.require(self.parallel)
        CacheTypes(self.keys, self.values)


@dataclass(frozen=True)
class MemoryLine:
    """Bytes and what they are for; `known` says how."""

    name: str
    size_bytes: int
    known: Literal["exact", "counted", "fitted"]
    detail: str


@dataclass(frozen=True)
class MemoryUse:
    """Memory of a run, line by line."""

    weights: MemoryLine
    cache: tuple[MemoryLine, ...]
    outputs: MemoryLine
    compute: MemoryLine
    engine: MemoryLine

    @property
    def lines(self) -> tuple[MemoryLine, ...]:
        """Lines of the table, the weights first."""
        return (self.weights, *self.cache, self.outputs, self.compute, self.engine)

    @property
    def keys_bytes(self) -> int:
        """Bytes of the cache's keys."""
        return sum(line.size_bytes for line in self.cache if line.name.endswith(KEYS))

    @property
    def values_bytes(self) -> int:
        """Bytes of the cache's values."""
        return sum(line.size_bytes for line in self.cache) - self.keys_bytes

    @property
    def buffers_bytes(self) -> int:
        """Bytes that the engine's log calls buffers: all but its own share."""
        return self.total_bytes - self.engine.size_bytes

    @property
    def besides_weights_bytes(self) -> int:
        """Bytes of a run besides the weights."""
        return self.total_bytes - self.weights.size_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes of a run in all."""
        return sum(line.size_bytes for line in self.lines)


class MemoryModel(ABC):
    """Memory model of an engine."""

    @abstractmethod
    def use(self, shape: Dimensions, serving: Serving, *, weights_bytes: int) -> MemoryUse:
        """Return what the engine occupies with a model whose tensors take `weights_bytes` in its file.

        Raises:
            UserError: the context is longer than the model's, or a head does not divide into the blocks of a cache type.
        """

    @abstractmethod
    def header_bytes(self, source: Source, scratch: Path) -> int:
        """Return the bytes of the model's file that are no weights and are not kept in memory, counted in the folder `scratch`."""

    def anatomy(self, source: Source) -> "Anatomy":
        """Return what decides how much a run of the model occupies.

        Raises:
            ModelError: its metadata lacks a dimension.
        """
        with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
            return Anatomy(self, dimensions(source), self.header_bytes(source, Path(scratch)))


@dataclass(frozen=True)
class Anatomy:
    """Properties that decide the memory of a run under a `memory` model: the model's dimensions, and the bytes of its file besides weights."""

    memory: MemoryModel
    shape: Dimensions
    header_bytes: int

    def use(self, serving: Serving, *, file_bytes: int) -> MemoryUse:
        """Count the memory of a run of a file of `file_bytes`.

        Raises:
            UserError: the context or the types of the cache are not this model's.
        """
        return self.memory.use(self.shape, serving, weights_bytes=file_bytes - self.header_bytes)

    def file_bytes(self, serving: Serving, *, memory_bytes: int) -> int:
        """Return the bytes of the largest file whose run stays within `memory_bytes`; negative if the rest alone exceeds it.

        Raises:
            UserError: see `use`.
        """
        return memory_bytes - self.use(serving, file_bytes=self.header_bytes).total_bytes + self.header_bytes

    def cache_bytes(self, serving: Serving) -> dict[str, tuple[int, int]]:
        """Return the bytes of keys and of values in each cache type that divides their heads, by its name. Compute buffers that a type adds are
        included, so that a memory limit bounds file and cache together. `serving` keeps both in the plain type.

        Raises:
            UserError: see `use`.
        """
        plain = self.use(serving, file_bytes=self.header_bytes)
        found = {}
        for name in CACHE_FORMATS:
            if all(cache_format(name).fits((head,)) for head in (self.shape.key_head, self.shape.value_head)):
                keys, values = (self._more(asked, plain) for asked in (replace(serving, keys=name), replace(serving, values=name)))
                found[name] = (plain.keys_bytes + keys, plain.values_bytes + values)
        return found

    def _more(self, serving: Serving, plain: MemoryUse) -> int:
        return self.use(serving, file_bytes=self.header_bytes).total_bytes - plain.total_bytes
