"""What a plan stays within: the size of a file, or the memory of a run, in which the file and the cache compete.

A run's prices hold for every context, since in a file the cache takes nothing. Where a memory is given, its units get the bytes that the context
makes of them, and the same solvers and searches then spend one bound on both.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import open_headers
from bitwright.engines import Anatomy, Serving, memory_model_named
from bitwright.errors import BudgetError, UserError
from bitwright.pipeline.candidates import budget_bytes
from bitwright.pipeline.memory_budget import budget_left, memory_bytes
from bitwright.pipeline.run import Run
from bitwright.pipeline.settings import LONGEST, Settings
from bitwright.spaces import (
    ANY_CACHE,
    DEFAULT_CACHE,
    AnyCacheTypes,
    Budget,
    CacheTypes,
    Choice,
    Space,
    cache_mask,
    file_bytes,
    finest_cache_types,
    has_cache,
    with_cache_sizes,
)


@dataclass(frozen=True)
class Memory:
    """What a whole run may occupy: `size` in bytes, with `parallel` sequences of `context` tokens, keys and values in types that are decided with the
    weights where a run has measured them, or in those named.
    """

    size: Budget
    context: int
    parallel: int = 1
    cache: CacheTypes | AnyCacheTypes = ANY_CACHE

    @property
    def fixed(self) -> CacheTypes:
        """The types where they are not decided: those named, or the plain ones."""
        return self.cache if isinstance(self.cache, CacheTypes) else DEFAULT_CACHE

    def serving(self, types: CacheTypes) -> Serving:
        """What is asked of the engine.

        Raises:
            UserError: a count below one.
        """
        return Serving(self.context, self.parallel, types.keys, types.values)

    @property
    def text(self) -> str:
        """As people say it."""
        return f"{self.size.text} of memory at {self.context} × {self.parallel} tokens"


#: the size of a file, or the memory of a run
Within = Budget | Memory


def deciding(settings: Settings, limit: Within) -> Settings:
    """The settings of a run for a limit: with types of the cache that it names or lets be decided, measured at its context as far as that goes."""
    if not isinstance(limit, Memory):
        return settings
    return replace(settings, cache_types=str(limit.cache), cache_length=min(max(limit.context, 2), LONGEST))


@dataclass(frozen=True, eq=False)
class Original:
    """A model, what it is for, and the bytes of its file as it is stored. Its tensors are looked at once, and only where a memory is asked about."""

    model: str
    target: str
    size_bytes: int

    @cached_property
    def anatomy(self) -> Anatomy:
        """What decides what a run of it occupies.

        Raises:
            UserError: the model cannot be read, or the engine's memory cannot be counted.
        """
        counted = memory_model_named(self.target)
        return counted.anatomy(open_headers(self.model).least)


@dataclass(frozen=True, eq=False)
class Bound:
    """A run whose space counts what is bounded, and the bound in bytes: of the file, or of the file and the cache. `cache` are the types where the
    run does not decide about them.
    """

    run: Run
    size_bytes: int
    text: str
    cache: CacheTypes

    def file_bytes(self, choice: Choice) -> int:
        """What the bound leaves to the file beside the cache of a choice `(n_units,)`."""
        space = self.run.prices.space
        return self.size_bytes - (space.total_bytes(choice) - file_bytes(space, choice))


def bounded(run: Run, limit: Within) -> Bound:
    """A run within a limit.

    Raises:
        UserError: see `bound_space`.
    """
    prices = run.prices
    original = Original(run.settings.model, run.settings.target, prices.original_bytes)
    space, size_bytes = bound_space(prices.space, limit, original)
    tried = prices.tried & _left(prices.space, limit)
    served = replace(run, prices=replace(prices, space=space, tried=tried))
    return Bound(served, size_bytes, limit.text, limit.fixed if isinstance(limit, Memory) else DEFAULT_CACHE)


def as_file(run: Run) -> Run:
    """The run with the cache in the finest types it is offered, where sizes of files alone are compared."""
    kept = cache_mask(run.prices.space, finest_cache_types(run.prices.space))
    return replace(run, prices=replace(run.prices, space=run.prices.space.narrowed(kept), tried=run.prices.tried & kept))


def bound_space(space: Space, limit: Within, original: Original) -> tuple[Space, int]:
    """The space of a model that counts what is bounded, and the bound in bytes.

    Raises:
        BudgetError: the original is within the limit, or no choice is.
        UserError: the context or the types of the cache are not this model's, or the types were not offered.
    """
    kept = space.narrowed(_left(space, limit))
    if isinstance(limit, Memory) and not has_cache(space):
        limit = replace(limit, cache=limit.fixed)
    for_file = require_needed(limit, original, n_weights=space.n_weights)
    if isinstance(limit, Budget) or not has_cache(space):
        return kept, for_file
    served, room = within_memory(kept, original.anatomy, limit.serving(DEFAULT_CACHE), memory_bytes=memory_bytes(limit.size))
    smallest = served.total_bytes(served.smallest())
    if room < smallest:
        raise BudgetError(
            f"A memory must hold the smallest file and cache beside buffers and engine; {limit.size.text} lacks {(smallest - room) / 2**20:,.1f} MiB "
            "of it: give more memory, a shorter context or fewer sequences."
        )
    return served, room


def require_needed(limit: Within, original: Original, *, n_weights: int) -> int:
    """The bytes that a limit leaves to a file, with the cache in the types that are named or else in the plain ones, which may be none.

    Raises:
        BudgetError: the original has no more, or no memory could hold so little.
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
    """The space in which the cache has its size at a `serving` in plain types, and what a memory leaves to file and cache together.

    Raises:
        UserError: the context is longer than the model's.
    """
    plain = found.use(serving, file_bytes=found.header_bytes)
    room = found.file_bytes(serving, memory_bytes=memory_bytes) + plain.keys_bytes + plain.values_bytes
    return with_cache_sizes(space, found.cache_bytes(serving)), room


def narrowed_to(space: Space, types: CacheTypes | AnyCacheTypes) -> Space:
    """The space in which the cache has the types that are named, where it is decided about.

    Raises:
        UserError: they were not offered.
    """
    return space.narrowed(_kept(space, types))


def _left(space: Space, limit: Within) -> NDArray[np.bool_]:
    """The pairs of a space that a limit leaves `(n_units, n_formats)`: where no memory is given the cache is as fine as it is offered."""
    return _kept(space, limit.cache if isinstance(limit, Memory) else finest_cache_types(space))


def _kept(space: Space, types: CacheTypes | AnyCacheTypes) -> NDArray[np.bool_]:
    if isinstance(types, AnyCacheTypes):
        return np.ones(space.offered.shape, dtype=np.bool_)
    kept = cache_mask(space, types)
    if not (space.offered & kept).any(axis=1).all():
        raise UserError(f"A cache must have types that the run has measured; {types} is not among them: search again with --cache-types any.")
    return kept
