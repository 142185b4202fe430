"""What an engine keeps keys and values in: two decisions beside those of the weights.

`cache.k` and `cache.v` are units of a space like any other. In the file they take no bytes; within a memory they take what a context takes, which
differs from device to device, so their sizes are filled in where a memory is given (`with_cache_sizes`). That is why one run serves every context.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.spaces.format import GGML_BY_NAME, BlockFormat
from bitwright.spaces.space import Choice, Choices, Space
from bitwright.spaces.unit import Tensor, Unit

_KEYS, _VALUES = "cache.k", "cache.v"
#: what the engine keeps them in where nothing else is said
PLAIN = "F16"
#: types that llama.cpp can keep keys and values in, from the finest to the coarsest
CacheType = Literal["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"]
CACHE_FORMATS: tuple[str, ...] = get_args(CacheType)
#: those of them that are worth a decision: F32 and BF16 hold nothing that F16 does not
CACHE_MENU = ("F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
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


PLAIN_CACHE, ANY_CACHE = CacheTypes(), AnyCacheTypes()


def cache_types(text: str) -> CacheTypes | AnyCacheTypes:
    """The types that `q8_0`, `q8_0,q4_0` (keys, values) or `any` names.

    Raises:
        UserError: it names more than two, or one that no cache has.
    """
    names = [name.strip().upper() for name in text.split(",") if name.strip()] or [PLAIN]
    if names == [_ANY.upper()]:
        return ANY_CACHE
    if len(names) > 2:
        raise UserError(f"A cache has a type for keys and one for values; '{text}' names {len(names)}: name one or two, or any.")
    return CacheTypes(names[0], names[-1])


def cache_format(name: str) -> BlockFormat:
    """The format of a cache type."""
    return GGML_BY_NAME[name]


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
    """The space with a unit for keys and one for values, each `(heads over all layers, size of a head)`: any types that divide the heads, of which
    `PLAIN` is always one, or those named. In the file they take no bytes.

    Raises:
        UserError: a type that is named does not divide the heads.
    """
    if isinstance(types, CacheTypes):
        require_whole_blocks(types, key_head=keys[1], value_head=values[1])
    menus = (CACHE_MENU, CACHE_MENU) if isinstance(types, AnyCacheTypes) else ((types.keys,), (types.values,))
    offered = [[form.name in menu and form.fits(shape) for form in space.formats] for menu, shape in zip(menus, (keys, values), strict=True)]
    units = tuple(Unit(name, -1, name, (Tensor(name, shape, PLAIN),)) for name, shape in ((_KEYS, keys), (_VALUES, values)))
    sizes = np.zeros((len(units), len(space.formats)), dtype=np.int64)
    return replace(
        space,
        units=(*space.units, *units),
        size_bits=np.concatenate([space.size_bits, sizes]),
        offered=np.concatenate([space.offered, np.array(offered)]),
    )


def has_cache(space: Space) -> bool:
    """Whether the types of the cache are among what is decided."""
    return bool(space.units) and space.units[-1].name == _VALUES


def of_weights(space: Space) -> Space:
    """The space without the units of the cache."""
    if not has_cache(space):
        return space
    return replace(space, units=space.units[:-2], size_bits=space.size_bits[:-2], offered=space.offered[:-2])


def without_cache(space: Space, choices: Choices) -> Choices:
    """Choices `(..., n_units)` without the columns of the cache."""
    return choices[..., :-2] if has_cache(space) else choices


def file_bytes(space: Space, choice: Choice) -> int:
    """Bytes of the file for one choice `(n_units,)`, whatever the space counts besides."""
    return of_weights(space).total_bytes(without_cache(space, choice))


def chosen_cache(space: Space, choice: Choice) -> CacheTypes:
    """The types that a choice `(n_units,)` gives the cache: plain where they are not decided about."""
    return CacheTypes(*(space.formats[f].name for f in choice[-2:])) if has_cache(space) else PLAIN_CACHE


def in_types(space: Space, choice: Choice, types: CacheTypes) -> Choice:
    """A choice of the weights' formats `(n_weight_units,)` with these types of the cache, where they are decided about: `(n_units,)`."""
    if not has_cache(space):
        return choice
    names = [form.name for form in space.formats]
    return np.append(choice, [names.index(types.keys), names.index(types.values)])


def finest_types(space: Space) -> CacheTypes:
    """The plain types where they are offered, else the finest that are; what is best where no memory is given."""
    if not has_cache(space):
        return PLAIN_CACHE
    offered = [[form.name for form, is_offered in zip(space.formats, row, strict=True) if is_offered] for row in space.offered[-2:]]
    return CacheTypes(*(PLAIN if PLAIN in names else names[0] for names in offered))


def of_types(space: Space, types: CacheTypes) -> NDArray[np.bool_]:
    """The pairs of a space that are left where the cache has these types alone `(n_units, n_formats)`."""
    left = np.ones(space.offered.shape, dtype=np.bool_)
    if has_cache(space):
        left[-2:] = [[form.name == name for form in space.formats] for name in (types.keys, types.values)]
    return left


def with_cache_sizes(space: Space, size_bytes: Mapping[str, tuple[int, int]]) -> Space:
    """The space in which keys and values take the bytes that are said for the name of their type."""
    if not has_cache(space):
        return space
    bits = space.size_bits.copy()
    bits[-2:] = np.array([[8 * size for size in size_bytes.get(form.name, (0, 0))] for form in space.formats]).T
    return replace(space, size_bits=bits)
