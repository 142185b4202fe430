"""Types of the KV cache as two further units of a search space, one for keys and one for values.

`cache.k` and `cache.v` are units like any other. In the file they take no bytes; in memory they take the bytes of the context, which differ from
device to device, so their sizes are filled in once a memory budget is known (`with_cache_sizes`). That is why one run serves every context.
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
#: the engine's default type
DEFAULT_CACHE_TYPE = "F16"
#: KV cache types of llama.cpp, from the finest to the coarsest
CacheType = Literal["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"]
CACHE_FORMATS: tuple[str, ...] = get_args(CacheType)
#: the types worth choosing from: F32 and BF16 hold nothing that F16 does not
CACHE_MENU = ("F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
_ANY = "any"


@dataclass(frozen=True)
class CacheTypes:
    """KV cache types: one for keys, one for values.

    Raises:
        UserError: a type is not a KV cache type of llama.cpp.
    """

    keys: str = DEFAULT_CACHE_TYPE
    values: str = DEFAULT_CACHE_TYPE

    def __post_init__(self) -> None:
        for name in (self.keys, self.values):
            if name not in CACHE_FORMATS:
                close = get_close_matches(name, CACHE_FORMATS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(CACHE_FORMATS)}."
                raise UserError(f"A cache type must be one that llama.cpp has for its KV cache; '{name}' is not: {hint}")

    @property
    def is_default(self) -> bool:
        """Return whether both are the engine's default."""
        return self.keys == self.values == DEFAULT_CACHE_TYPE

    def __str__(self) -> str:
        return self.keys if self.keys == self.values else f"{self.keys}, {self.values}"


@dataclass(frozen=True)
class AnyCacheTypes:
    """KV cache types left open: the search chooses them together with the formats of the weights."""

    def __str__(self) -> str:
        return _ANY


DEFAULT_CACHE, ANY_CACHE = CacheTypes(), AnyCacheTypes()


def cache_types(text: str) -> CacheTypes | AnyCacheTypes:
    """Parse `q8_0`, `q8_0,q4_0` (keys, values) or `any`.

    Raises:
        UserError: `text` names more than two types, or one that is not a KV cache type.
    """
    names = [name.strip().upper() for name in text.split(",") if name.strip()] or [DEFAULT_CACHE_TYPE]
    if names == [_ANY.upper()]:
        return ANY_CACHE
    if len(names) > 2:
        raise UserError(f"A KV cache has one type for keys and one for values; '{text}' names {len(names)}: name one or two, or any.")
    return CacheTypes(names[0], names[-1])


def cache_format(name: str) -> BlockFormat:
    """Return the block format of a KV cache type."""
    return GGML_BY_NAME[name]


def rotation(name: str, head: int, *, keys: bool) -> int:
    """Return the width of the Hadamard transform that the engine applies to a head of size `head` before it quantizes it to this type, 0 for none.

    As logged by llama.cpp b11549 for head sizes 32 to 320: only for block types, and only where 64 divides the head size; 64 for values, for keys
    the largest power of two that divides the head size.
    """
    if cache_format(name).block == 1 or head % 64:
        return 0
    return head & -head if keys else 64


def require_whole_blocks(types: CacheTypes, *, key_head: int, value_head: int) -> None:
    """Raise if a head is not a whole number of blocks of its type.

    Raises:
        UserError: the block size of a type does not divide the head size.
    """
    for head, name in ((key_head, types.keys), (value_head, types.values)):
        if not cache_format(name).fits((head,)):
            raise UserError(
                f"The block size of a cache type must divide the head size; {name} has blocks of {cache_format(name).block} and a head of this "
                f"model has {head} numbers: choose {DEFAULT_CACHE_TYPE}."
            )


def with_cache(space: Space, types: CacheTypes | AnyCacheTypes, *, keys: tuple[int, int], values: tuple[int, int]) -> Space:
    """Return the space with one unit for keys and one for values, each of shape `(heads over all layers, head size)`. They are offered every type
    whose blocks divide the head size (`DEFAULT_CACHE_TYPE` always), or the types named. In the file they take no bytes.

    Raises:
        UserError: the block size of a named type does not divide the head size.
    """
    if isinstance(types, CacheTypes):
        require_whole_blocks(types, key_head=keys[1], value_head=values[1])
    menus = (CACHE_MENU, CACHE_MENU) if isinstance(types, AnyCacheTypes) else ((types.keys,), (types.values,))
    offered = [[form.name in menu and form.fits(shape) for form in space.formats] for menu, shape in zip(menus, (keys, values), strict=True)]
    units = tuple(Unit(name, -1, name, (Tensor(name, shape, DEFAULT_CACHE_TYPE),)) for name, shape in ((_KEYS, keys), (_VALUES, values)))
    sizes = np.zeros((len(units), len(space.formats)), dtype=np.int64)
    return replace(
        space,
        units=(*space.units, *units),
        size_bits=np.concatenate([space.size_bits, sizes]),
        offered=np.concatenate([space.offered, np.array(offered)]),
    )


def has_cache(space: Space) -> bool:
    """Return whether the KV cache types are units of the space."""
    return bool(space.units) and space.units[-1].name == _VALUES


def weight_space(space: Space) -> Space:
    """Return the space without the units of the KV cache."""
    if not has_cache(space):
        return space
    return replace(space, units=space.units[:-2], size_bits=space.size_bits[:-2], offered=space.offered[:-2])


def without_cache(space: Space, choices: Choices) -> Choices:
    """Return choices `(..., n_units)` without the columns of the KV cache."""
    return choices[..., :-2] if has_cache(space) else choices


def file_bytes(space: Space, choice: Choice) -> int:
    """Return the bytes of the file for one choice `(n_units,)`, without the bytes of the KV cache in memory."""
    return weight_space(space).total_bytes(without_cache(space, choice))


def chosen_cache(space: Space, choice: Choice) -> CacheTypes:
    """Return the KV cache types of a choice `(n_units,)`: the engine's default where they are no units of the space."""
    return CacheTypes(*(space.formats[f].name for f in choice[-2:])) if has_cache(space) else DEFAULT_CACHE


def with_cache_choice(space: Space, choice: Choice, types: CacheTypes) -> Choice:
    """Return a choice of the weights' formats `(n_weight_units,)` extended by these KV cache types, where they are units: `(n_units,)`."""
    if not has_cache(space):
        return choice
    names = [form.name for form in space.formats]
    return np.append(choice, [names.index(types.keys), names.index(types.values)])


def finest_cache_types(space: Space) -> CacheTypes:
    """Return the default types where they are offered, else the finest offered ones: the best choice where no memory budget is given."""
    if not has_cache(space):
        return DEFAULT_CACHE
    offered = [[form.name for form, is_offered in zip(space.formats, row, strict=True) if is_offered] for row in space.offered[-2:]]
    return CacheTypes(*(DEFAULT_CACHE_TYPE if DEFAULT_CACHE_TYPE in names else names[0] for names in offered))


def cache_mask(space: Space, types: CacheTypes) -> NDArray[np.bool_]:
    """Mask of the pairs `(n_units, n_formats)` that stay offered where the KV cache has exactly these types."""
    left = np.ones(space.offered.shape, dtype=np.bool_)
    if has_cache(space):
        left[-2:] = [[form.name == name for form in space.formats] for name in (types.keys, types.values)]
    return left


def with_cache_sizes(space: Space, size_bytes: Mapping[str, tuple[int, int]]) -> Space:
    """Return the space in which keys and values take `size_bytes[type name]`, `(bytes of keys, bytes of values)`."""
    if not has_cache(space):
        return space
    bits = space.size_bits.copy()
    bits[-2:] = np.array([[8 * size for size in size_bytes.get(form.name, (0, 0))] for form in space.formats]).T
    return replace(space, size_bits=bits)
