"""Keys and values as llama.cpp keeps them, in torch: what a token's attention reads back of all tokens before it and of itself.

llama.cpp writes every key, turned by its position, and every value to its cache before any attention reads them, so a prompt too sees them rounded.
Where the type has blocks and 64 divides a head, a Hadamard transform H, which is its own inverse, spreads outliers first (llama.cpp, pull request
21038): the query is turned as the key is, and what attention sums is turned back. Since (Hq)·r(Hk) = q·H r(Hk) and H(Σ a r(Hv)) = Σ a H r(Hv), it is
the same to keep H r(Hk) and H r(Hv), which is what happens here. The rounding r is the engine's own code for it, over the numbers of a key in the
engine's order: see `pieces.py`.

What differs: the engine rounds the query to 8 bits where keys are rounded, as it does with all activations.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor as Torch
from transformers import DynamicCache

from bitwright.compress.models.architectures import ARCHITECTURES
from bitwright.compress.models.gguf.libggml import dequantize, round_plainly
from bitwright.compress.models.model import Model
from bitwright.spaces import DEFAULT_CACHE_TYPE, CacheTypes, cache_format, rotation

_EXACT = (DEFAULT_CACHE_TYPE, "F32")
_GIVEN = "past_key_values"


class KeptCache:
    """`with kept_cache(model) as cache: cache.keep(types); ...`, as often as the types change."""

    def __init__(self, *, interleaved: bool) -> None:
        self._interleaved, self._types = interleaved, CacheTypes()

    def keep(self, types: CacheTypes) -> None:
        """From now on every pass of the model keeps its keys and values in these types; plain ones are left as they are."""
        self._types = types

    def given(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:  # noqa: ARG002
        """What the model is called with: a cache that rounds, where it has none of its own."""
        if self._types.is_default or kwargs.get(_GIVEN) is not None:
            return args, kwargs
        return args, kwargs | {_GIVEN: _Rounding(self._types, interleaved=self._interleaved)}


class _Rounding(DynamicCache):
    """A cache for one pass over whole sequences: it gives back what it would hold, and so needs to hold nothing."""

    def __init__(self, types: CacheTypes, *, interleaved: bool) -> None:
        super().__init__()
        self._types, self._interleaved = types, interleaved

    def update(self, key_states: Torch, value_states: Torch, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Torch, Torch]:  # noqa: ARG002
        """Keys and values `(n_sequences, n_heads, length, head)` as they are read back."""
        return kept_keys(key_states, self._types.keys, interleaved=self._interleaved), kept_values(value_states, self._types.values)


@contextmanager
def kept_cache(model: Model) -> Iterator[KeptCache]:
    """What makes a model keep its keys and values in types of the engine, plain at first, for as long as the block lasts."""
    kept = KeptCache(interleaved=ARCHITECTURES[model.source.architecture].rotary_interleaved)
    handle = model.module.register_forward_pre_hook(kept.given, with_kwargs=True)
    try:
        yield kept
    finally:
        handle.remove()


@contextmanager
def cached_in(model: Model, types: CacheTypes) -> Iterator[None]:
    """The model with its keys and values in these types, for as long as the block lasts."""
    with kept_cache(model) as kept:
        kept.keep(types)
        yield


def kept_keys(states: Torch, name: str, *, interleaved: bool) -> Torch:
    """Keys `(..., head)` in float32 as the engine reads them back from a cache of the type called `name`; `F16` counts as exact.

    Where `interleaved`, the engine has the two halves of a head in turn.
    """
    if not interleaved:
        return _kept(states, name, width=rotation(name, states.shape[-1], keys=True))
    halves = states.reshape(*states.shape[:-1], 2, -1).transpose(-1, -2).reshape(states.shape)
    kept = _kept(halves, name, width=rotation(name, states.shape[-1], keys=True))
    return kept.reshape(*states.shape[:-1], -1, 2).transpose(-1, -2).reshape(states.shape)


def kept_values(states: Torch, name: str) -> Torch:
    """The same of values, whose order is one everywhere."""
    return _kept(states, name, width=rotation(name, states.shape[-1], keys=False))


def _kept(states: Torch, name: str, *, width: int) -> Torch:
    """Vectors `(..., head)` rounded to a type while turned by Hadamard matrices of `width`."""
    if name in _EXACT:
        return states
    rows = _turned(states, width).reshape(-1, states.shape[-1]).float().cpu().numpy()
    rounded = dequantize(round_plainly(rows, cache_format(name)), name, rows.shape)
    return _turned(torch.from_numpy(rounded).to(states).reshape(states.shape), width)


def _turned(states: Torch, width: int) -> Torch:
    """Every `width` numbers of a head times the Hadamard matrix of that width."""
    if not width:
        return states
    matrix = torch.from_numpy(_hadamard(width)).to(states)
    return (states.reshape(*states.shape[:-1], -1, width) @ matrix).reshape(states.shape)


@cache
def _hadamard(width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sylvester's matrix `(width, width)`, scaled to be its own inverse."""
    matrix = np.ones((1, 1), dtype=np.float32)
    while len(matrix) < width:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.float32(np.sqrt(width))
