"""Reading of a text token by token, with what the model keeps between two passes, whatever it calls that."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor as Torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

#: outputs that a model takes back: a cache of keys and values, or states of a state space; RWKV's `state` is not one after several tokens at once
_KEPT = ("past_key_values", "cache_params")


class TokenReader:
    """Reader of token ids, each time after those read before. Where the model keeps nothing, it reads all of them again."""

    def __init__(self, module: PreTrainedModel) -> None:
        self._module = module
        self._ids: Torch | None = None
        self._kept: Mapping[str, Any] = {}

    def read(self, ids: Torch) -> Torch:
        """Read `ids` `(n, n_ids)` and return the logits `(n, n_vocabulary)` of the token after them."""
        is_first = self._ids is None
        self._ids = ids if self._ids is None else torch.cat([self._ids, ids], dim=1)
        given = ids if self._kept else self._ids
        found = self._module(given, **self._kept, use_cache=is_first or bool(self._kept), logits_to_keep=1)
        self._kept = next(({name: found[name]} for name in _KEPT if found.get(name) is not None), {})
        if is_first:
            for cache in (kept for kept in self._kept.values() if isinstance(kept, DynamicCache)):
                cache.layers = [_RoomyLayer(layer) if type(layer) is DynamicLayer and layer.is_initialized else layer for layer in cache.layers]
        logits: Torch = found.logits[:, -1]
        return logits


class _RoomyLayer(DynamicLayer):
    """Keys and values of a layer, `(n, n_heads, n_tokens, width)` each, in buffers with room for more tokens: `DynamicLayer` copies those of all
    tokens for every new one.
    """

    def __init__(self, layer: DynamicLayer) -> None:
        """Keys and values of `layer` are taken over."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.is_initialized = layer.keys, layer.values, layer.is_initialized
        self.dtype, self.device = layer.dtype, layer.device
        self._rooms: list[Torch] = [layer.keys, layer.values]  # type: ignore[list-item]  # there are some once a layer is initialised

    def update(self, key_states: Torch, value_states: Torch, *_: Any, **__: Any) -> tuple[Torch, Torch]:
        """Add the keys and values of new tokens, and return those of all."""
        n_known = self.get_seq_length()
        self.keys, self.values = (self._with(i, new, n_known) for i, new in enumerate((key_states, value_states)))
        return self.keys, self.values

    def _with(self, i: int, new: Torch, n_known: int) -> Torch:
        n, room = n_known + new.shape[-2], self._rooms[i]
        if room.shape[-2] < n:
            self._rooms[i] = room.new_empty((*room.shape[:-2], 2 * n, room.shape[-1]))
            self._rooms[i][..., :n_known, :] = room[..., :n_known, :]
        self._rooms[i][..., n_known:n, :] = new
        return self._rooms[i][..., :n, :]
