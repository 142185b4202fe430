"""Greedy generation by a module in torch, for the checks of checkpoints that torch itself loads."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from bitwright.compress import Model
from bitwright.objectives import require_known

_GENERATED_TOKENS = 24


@dataclass(frozen=True)
class Generated:
    """Generated text, and the number of tokens decoded per second, the prompt not counted."""

    text: str
    tokens_per_second: float


@torch.inference_mode()
def continued(model: Model, prompt: str) -> Generated:
    """Return what the model writes after the prompt, the likeliest token each time. A model without a cache of keys and values, such as one of state
    spaces, reads everything again for each token.
    """
    prompt_ids = np.array(model.tokenizer(prompt)["input_ids"], dtype=np.int64)
    require_known(prompt_ids, model, text=f"'{prompt}'")
    ids = torch.from_numpy(prompt_ids[None]).to(model.device)
    found = model.module(ids, use_cache=True)
    written, started = [], time.perf_counter()
    for _ in range(_GENERATED_TOKENS):
        token = found.logits[:, -1:].argmax(dim=-1)
        written.append(int(token))
        cache = found.get("past_key_values")
        ids = token if cache is not None else torch.cat([ids, token], dim=-1)
        found = model.module(ids, use_cache=True) if cache is None else model.module(ids, past_key_values=cache, use_cache=True)
    seconds = time.perf_counter() - started
    return Generated(str(model.tokenizer.decode(written)), _GENERATED_TOKENS / seconds)
