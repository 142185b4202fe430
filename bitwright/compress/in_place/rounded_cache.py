"""KV cache quantization of llama.cpp, simulated in torch: attention reads keys and values as rounded by the cache type.

llama.cpp writes every key, after RoPE, and every value to its cache before attention reads them, so that a prompt sees them rounded too. For block
types and head dimensions divisible by 64, a Hadamard transform H, its own inverse, spreads outliers first (llama.cpp, pull request 21038): queries
are transformed like keys, and the attention output is transformed back. Since (Hq)·r(Hk) = q·H r(Hk) and H(Σ a r(Hv)) = Σ a H r(Hv), caching H r(Hk)
and H r(Hv) is equivalent, which is done here. The rounding r is the engine's own code, on the numbers of a key in the engine's order: see
`tensor_layout.py`.

One difference: with quantized keys the engine also rounds the query to 8 bits, as it does with all activations.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor as Torch
from transformers import DynamicCache

from bitwright.compress.models.gguf.libggml import dequantize, round_plainly
from bitwright.compress.models.model import Model
from bitwright.spaces import DEFAULT_CACHE_TYPE, CacheTypes, cache_format, role, rotation

_EXACT = (DEFAULT_CACHE_TYPE, "F32")
_KEYS = "attn_k"
_CACHE_ARGUMENT = "past_key_values"


class CacheRounding:
    """Cache types of a model within a `with` block, which can be changed as often as needed."""

    def __init__(self, *, interleaved: bool) -> None:
        self._interleaved, self._types = interleaved, CacheTypes()

    def set_types(self, types: CacheTypes) -> None:
        """Set the cache types of all later forward passes; F16 counts as exact."""
        self._types = types

    def pass_cache(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:  # noqa: ARG002
        """Pass a cache that rounds to the model, unless it is called with one."""
        if self._types.is_default or kwargs.get(_CACHE_ARGUMENT) is not None:
            return args, kwargs
        return args, kwargs | {_CACHE_ARGUMENT: _RoundedCache(self._types, interleaved=self._interleaved)}


class _RoundedCache(DynamicCache):
    """Cache for one forward pass over whole sequences: it returns rounded keys and values and stores nothing."""

    def __init__(self, types: CacheTypes, *, interleaved: bool) -> None:
        super().__init__()
        self._types, self._interleaved = types, interleaved

    def update(self, key_states: Torch, value_states: Torch, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Torch, Torch]:  # noqa: ARG002
        """Return keys and values `(n_sequences, n_heads, length, head)` as read back from the cache."""
        return rounded_keys(key_states, self._types.keys, interleaved=self._interleaved), rounded_values(value_states, self._types.values)


@contextmanager
def cache_rounding(model: Model) -> Iterator[CacheRounding]:
    """Simulate the KV cache of the engine within the block, in F16 at first."""
    rounding = CacheRounding(interleaved=_is_interleaved(model))
    handle = model.module.register_forward_pre_hook(rounding.pass_cache, with_kwargs=True)
    try:
        yield rounding
    finally:
        handle.remove()


def _is_interleaved(model: Model) -> bool:
    """Return whether the engine's keys have the dimensions of a rotary pair next to each other: then the rows that make them are reordered."""
    return any(not piece.is_plain for name, pieces in model.pieces.items() if role(name) == _KEYS for piece in pieces)


@contextmanager
def quantized_cache(model: Model, types: CacheTypes) -> Iterator[None]:
    """Quantize the model's KV cache to these types within the block."""
    with cache_rounding(model) as rounding:
        rounding.set_types(types)
        yield


def rounded_keys(states: Torch, name: str, *, interleaved: bool) -> Torch:
    """Return keys `(..., head)` in float32 as read back from a cache of the type called `name`; `F16` counts as exact.

    With `interleaved`, the engine interleaves the two halves of a head.
    """
    if not interleaved:
        return _rounded(states, name, width=rotation(name, states.shape[-1], keys=True))
    halves = states.reshape(*states.shape[:-1], 2, -1).transpose(-1, -2).reshape(states.shape)
    rounded = _rounded(halves, name, width=rotation(name, states.shape[-1], keys=True))
    return rounded.reshape(*states.shape[:-1], -1, 2).transpose(-1, -2).reshape(states.shape)


def rounded_values(states: Torch, name: str) -> Torch:
    """Return values `(..., head)` as read back from a cache of the type called `name`."""
    return _rounded(states, name, width=rotation(name, states.shape[-1], keys=False))


def _rounded(states: Torch, name: str, *, width: int) -> Torch:
    """Round vectors `(..., head)` to a type in the basis of Hadamard matrices of `width`."""
    if name in _EXACT:
        return states
    rows = _rotated(states, width).reshape(-1, states.shape[-1]).float().cpu().numpy()
    rounded = dequantize(round_plainly(rows, cache_format(name)), name, rows.shape)
    return _rotated(torch.from_numpy(rounded).to(states).reshape(states.shape), width)


def _rotated(states: Torch, width: int) -> Torch:
    """Multiply every `width` numbers of a head by the Hadamard matrix of that width."""
    if not width:
        return states
    matrix = torch.from_numpy(_hadamard(width)).to(states)
    return (states.reshape(*states.shape[:-1], -1, width) @ matrix).reshape(states.shape)


@cache
def _hadamard(width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sylvester's Hadamard matrix `(width, width)`, scaled to be its own inverse."""
    matrix = np.ones((1, 1), dtype=np.float32)
    while len(matrix) < width:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.float32(np.sqrt(width))
