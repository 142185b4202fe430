"""Size limit of a plan: a file size, or a memory limit that weights and KV cache share.

A run's prices hold for every context, since the KV cache takes no bytes of the file. For a memory limit, the units of the cache get their bytes at
the context, and the same solvers and searches then divide one limit between weights and cache.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import open_headers
from bitwright.engines import Anatomy, Serving, engine_named, memory_model_named
from bitwright.errors import BudgetError, UserError
from bitwright.pipeline.planning.candidates import budget_bytes
from bitwright.pipeline.planning.memory_budget import budget_left, memory_bytes
from bitwright.pipeline.run import Run
from bitwright.pipeline.settings import LONGEST, Settings
from bitwright.spaces import (
    ANY_CACHE,
    DEFAULT_CACHE,
    AnyCacheTypes,
    Budget,
    CacheTypes,
    Space,
    cache_mask,
    finest_cache_types,
    has_cache,
    with_cache_sizes,
)


@dataclass(frozen=True)
class Memory:
    """Memory limit: `size` in bytes for weights, KV cache, buffers and engine, with `parallel` sequences of `context` tokens. `cache` are the KV
    cache types; by default they are chosen with the weights if the run has measured them.
    """

    size: Budget
    context: int
    parallel: int = 1
    cache: CacheTypes | AnyCacheTypes = ANY_CACHE

    @property
    def fixed(self) -> CacheTypes:
        """The KV cache types if the run does not choose them: those named, or the engine's default."""
        return self.cache if isinstance(self.cache, CacheTypes) else DEFAULT_CACHE

    def serving(self, types: CacheTypes) -> Serving:
        """Return the serving settings with these KV cache types.

        Raises:
            UserError: a count below one.
        """
        return Serving(self.context, self.parallel, types.keys, types.values)

    @property
    def text(self) -> str:
        """The limit in words."""
        return f"{self.size.text} of memory at {self.context} × {self.parallel} tokens"


#: a file size, or a memory limit
BudgetOrMemory = Budget | Memory


def settings_for_limit(settings: Settings, limit: BudgetOrMemory) -> Settings:
    """Return the settings for a limit: a memory limit sets the cache types, and the sequence length on which they are measured, from its context."""
    if not isinstance(limit, Memory):
        return settings
    return replace(settings, cache_types=str(limit.cache), cache_length=min(max(limit.context, 2), LONGEST))


@dataclass(frozen=True, eq=False)
class Original:
    """Model before quantization: its path, its target, and the bytes of its file as stored. Its headers are read only for a memory limit, once."""

    model: str
    target: str
    size_bytes: int

    @cached_property
    def anatomy(self) -> Anatomy:
        """The model's dimensions that determine its memory use in the engine.

        Raises:
            UserError: the model cannot be read, or there is no memory model for the engine.
        """
        counted = memory_model_named(self.target)
        return counted.anatomy(open_headers(self.model, engine_named(self.target).view).least)


def bounded(run: Run, limit: BudgetOrMemory) -> tuple[Run, int]:
    """Return the run with its space counting the limited bytes, of the file or of file and KV cache, and the limit in bytes.

    Raises:
        UserError: see `bound_space`.
    """
    original = Original(run.settings.model, run.settings.target, run.original_bytes)
    space, size_bytes = bound_space(run.space, limit, original)
    return replace(run, space=space, tried=run.tried & _left(run.space, limit)), size_bytes


def with_finest_cache(run: Run) -> Run:
    """Return the run with the KV cache fixed to its finest offered types, to compare file sizes alone."""
    finest = cache_mask(run.space, finest_cache_types(run.space))
    return replace(run, space=run.space.narrowed(finest), tried=run.tried & finest)


def bound_space(space: Space, limit: BudgetOrMemory, original: Original) -> tuple[Space, int]:
    """Return the space that counts the limited bytes, and the limit in bytes.

    Raises:
        BudgetError: the original is within the limit, or no choice is.
        UserError: the context is longer than the model's, its heads do not allow the cache types, or the run did not measure them.
    """
    served, room = counted_space(space, limit, original)
    smallest = served.total_bytes(served.smallest())
    if isinstance(limit, Memory) and has_cache(space) and room < smallest:
        raise BudgetError(
            f"A memory must hold the smallest file and cache beside buffers and engine; {limit.size.text} lacks {(smallest - room) / 2**20:,.1f} MiB "
            "of it: give more memory, a shorter context or fewer sequences."
        )
    return served, room


def counted_space(space: Space, limit: BudgetOrMemory, original: Original) -> tuple[Space, int]:
    """Return the space that counts the limited bytes, and the limit in bytes, which may be fewer than any choice has.

    Raises:
        BudgetError: the original is within the limit, or a cache of the named types alone exceeds it.
        UserError: see `bound_space`.
    """
    allowed = space.narrowed(_left(space, limit))
    if isinstance(limit, Memory) and not has_cache(space):
        limit = replace(limit, cache=limit.fixed)
    for_file = require_needed(limit, original, n_weights=space.n_weights)
    if isinstance(limit, Budget) or not has_cache(space):
        return allowed, for_file
    return within_memory(allowed, original.anatomy, limit.serving(DEFAULT_CACHE), memory_bytes=memory_bytes(limit.size))


def require_needed(limit: BudgetOrMemory, original: Original, *, n_weights: int) -> int:
    """Return the bytes that a limit leaves for the file, possibly 0, with the named KV cache types or else the default ones.

    Raises:
        BudgetError: the original is no larger, or a cache of the named types alone exceeds the memory.
        UserError: see `bound_space`.
    """
    if isinstance(limit, Budget):
        return budget_bytes(limit, n_weights=n_weights, original_bytes=original.size_bytes)
    size_bytes = memory_bytes(limit.size)
    if isinstance(limit.cache, CacheTypes):
        budget = budget_left(original.anatomy, limit.size, limit.serving(limit.cache))
    else:
        left = original.anatomy.file_bytes(limit.serving(DEFAULT_CACHE), memory_bytes=size_bytes)
        budget = Budget(limit.text, Fraction(left), "b")
    return budget_bytes(budget, n_weights=n_weights, original_bytes=original.size_bytes)


def within_memory(space: Space, found: Anatomy, serving: Serving, *, memory_bytes: int) -> tuple[Space, int]:
    """Return the space with the KV cache's bytes at a `serving`, which has default types, and the bytes that a memory leaves for file and cache.

    Raises:
        UserError: the context is longer than the model's.
    """
    plain = found.use(serving, file_bytes=found.header_bytes)
    room = found.file_bytes(serving, memory_bytes=memory_bytes) + plain.keys_bytes + plain.values_bytes
    return with_cache_sizes(space, found.cache_bytes(serving)), room


def narrowed_to(space: Space, types: CacheTypes | AnyCacheTypes) -> Space:
    """Return the space with the KV cache narrowed to these types, if it has units for the cache.

    Raises:
        UserError: the run did not measure these types.
    """
    return space.narrowed(_allowed(space, types))


def _left(space: Space, limit: BudgetOrMemory) -> NDArray[np.bool_]:
    """Return the pairs `(n_units, n_formats)` that a limit allows; without a memory limit, the KV cache has its finest offered types."""
    return _allowed(space, limit.cache if isinstance(limit, Memory) else finest_cache_types(space))


def _allowed(space: Space, types: CacheTypes | AnyCacheTypes) -> NDArray[np.bool_]:
    if isinstance(types, AnyCacheTypes):
        return np.ones(space.offered.shape, dtype=np.bool_)
    allowed = cache_mask(space, types)
    if not (space.offered & allowed).any(axis=1).all():
        raise UserError(f"A KV cache must have types that the run has measured; {types} is not among them: search again with --cache-types any.")
    return allowed
