"""What an engine keeps keys and values in: two decisions beside those of the weights.

`cache.k` and `cache.v` are units of a space like any other. In the file they take no bytes; within a memory they take what a context takes, which
differs from device to device, so their sizes are filled in where a memory is given (`with_cache_sizes`). That is why one run serves every context.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np

from bitwright.errors import UserError
from bitwright.spaces.format import GGML_FORMATS, BlockFormat
from bitwright.spaces.space import Choice, Choices, Space
from bitwright.spaces.unit import Tensor, Unit

KEYS, VALUES = "cache.k", "cache.v"
#: what the engine keeps them in where nothing else is said
PLAIN = "F16"
#: types that llama.cpp can keep keys and values in, from the finest to the coarsest
CACHE_FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
#: those of them that are worth a decision: F32 and BF16 hold nothing that F16 does not
_DECIDED = ("F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
_BY_NAME = {form.name: form for form in GGML_FORMATS}
_ANY = "any"


@dataclass(frozen=True)
class CacheTypes:
    """The types of keys and of values.

    Raises:
        UserError: a type that no cache has.
    """

    keys: str = PLAIN
    values: str = PLAIN

    def __post_init__(self) -> None:
        for name in (self.keys, self.values):
            if name not in CACHE_FORMATS:
                close = get_close_matches(name, CACHE_FORMATS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(CACHE_FORMATS)}."
                raise UserError(f"A cache must have a type that llama.cpp keeps it in; '{name}' is none: {hint}")

    @property
    def is_plain(self) -> bool:
        """Whether both are what the engine takes by itself."""
        return self.keys == self.values == PLAIN

    def __str__(self) -> str:
        return self.keys if self.keys == self.values else f"{self.keys}, {self.values}"


@dataclass(frozen=True)
class AnyCacheTypes:
    """Types that are decided together with the formats of the weights."""

    def __str__(self) -> str:
        return _ANY


def cache_types(text: str) -> CacheTypes | AnyCacheTypes:
    """The types that `q8_0`, `q8_0,q4_0` (keys, values) or `any` names.

    Raises:
        UserError: it names more than two, or one that no cache has.
    """
    names = [name.strip().upper() for name in text.split(",") if name.strip()] or [PLAIN]
    if names == [_ANY.upper()]:
        return AnyCacheTypes()
    if len(names) > 2:
        raise UserError(f"A cache has a type for keys and one for values; '{text}' names {len(names)}: name one or two, or any.")
    return CacheTypes(names[0], names[-1])


def cache_format(name: str) -> BlockFormat:
    """The format of a cache type."""
    return _BY_NAME[name]


def rotation(name: str, head: int, *, keys: bool) -> int:
    """Width of the Hadamard transform that the engine turns a head of `head` numbers by before it rounds them to this type, 0 where it does not.

    Read off the log of llama.cpp b11549 for heads of 32 to 320: only for types of blocks, and only where 64 divides the head; values by 64, keys by
    the largest power of two that divides it.
    """
    if cache_format(name).block == 1 or head % 64:
        return 0
    return head & -head if keys else 64


def require_whole_blocks(types: CacheTypes, *, key_head: int, value_head: int) -> None:
    """Refuse types whose blocks do not divide a head.

    Raises:
        UserError: one does not.
    """
    for head, name in ((key_head, types.keys), (value_head, types.values)):
        if not cache_format(name).fits((head,)):
            raise UserError(
                f"A cache type must divide a head into whole blocks; {name} has blocks of {cache_format(name).block} and a head of this model has "
                f"{head} numbers: choose {PLAIN}."
            )


def with_cache(space: Space, types: CacheTypes | AnyCacheTypes, *, keys: tuple[int, int], values: tuple[int, int]) -> Space:
    """The space with a unit for keys and one for values, each `(heads over all layers, size of a head)`.

    Any types are those that divide the heads; `PLAIN` always does. In the file they take no bytes.

    Raises:
        UserError: a type that is named does not divide the heads.
    """
    if isinstance(types, CacheTypes):
        require_whole_blocks(types, key_head=keys[1], value_head=values[1])
    menus = (_DECIDED, _DECIDED) if isinstance(types, AnyCacheTypes) else ((types.keys,), (types.values,))
    offered = [[form.name in menu and form.fits(shape) for form in space.formats] for menu, shape in zip(menus, (keys, values), strict=True)]
    units = tuple(Unit(name, -1, name, (Tensor(name, shape, PLAIN),)) for name, shape in ((KEYS, keys), (VALUES, values)))
    return replace(
        space,
        units=(*space.units, *units),
        size_bits=np.concatenate([space.size_bits, np.zeros_like(space.size_bits[:1]).repeat(2, axis=0)]),
        offered=np.concatenate([space.offered, np.array(offered)]),
    )


def has_cache(space: Space) -> bool:
    """Whether the types of the cache are among what is decided."""
    return bool(space.units) and space.units[-1].name == VALUES


def of_weights(space: Space) -> Space:
    """The space without the units of the cache."""
    if not has_cache(space):
        return space
    return replace(space, units=space.units[:-2], size_bits=space.size_bits[:-2], offered=space.offered[:-2])


def without_cache(space: Space, choices: Choices) -> Choices:
    """Choices `(..., n_units)` without the columns of the cache."""
    return choices[..., :-2] if has_cache(space) else choices


def chosen_cache(space: Space, choice: Choice) -> CacheTypes:
    """The types that a choice `(n_units,)` gives the cache: plain where they are not decided about."""
    return CacheTypes(*(space.formats[f].name for f in choice[-2:])) if has_cache(space) else CacheTypes()


def with_types(space: Space, types: CacheTypes) -> Space:
    """The space in which the cache has these types alone.

    Raises:
        UserError: they were not offered.
    """
    if not has_cache(space):
        return space
    narrow = space.offered.copy()
    narrow[-2:] &= np.array([[form.name == name for form in space.formats] for name in (types.keys, types.values)])
    if not narrow[-2:].any(axis=1).all():
        raise UserError(
            f"The types of the cache must be among those that a run has measured; {types} are not: search again with --cache-types {_ANY}."
        )
    return replace(space, offered=narrow)


def finest_cache(space: Space) -> Space:
    """The space in which the cache has the finest types it is offered: what is best where no memory is given."""
    if not has_cache(space):
        return space
    first = space.offered[-2:].argmax(axis=1)  # formats go from fine to coarse
    return with_types(space, CacheTypes(*(space.formats[f].name for f in np.where(space.offered[-2:, _plain(space)], _plain(space), first))))


def with_cache_sizes(space: Space, size_bytes: Mapping[str, tuple[int, int]]) -> Space:
    """The space in which the cache takes as many bytes as a format's name says, for keys and for values."""
    if not has_cache(space):
        return space
    bits = space.size_bits.copy()
    for f, form in enumerate(space.formats):
        bits[-2:, f] = [8 * size for size in size_bytes.get(form.name, (0, 0))]
    return replace(space, size_bits=bits)


def _plain(space: Space) -> int:
    return next(f for f, form in enumerate(space.formats) if form.name == PLAIN)
