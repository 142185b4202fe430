"""Reading of a text token by token, with what the model keeps between two passes, whatever it calls that."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor as Torch
from transformers import PreTrainedModel

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
        logits: Torch = found.logits[:, -1]
        return logits
