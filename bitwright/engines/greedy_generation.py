"""Greedy generation by a module in torch, for the checks of checkpoints that torch itself loads."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from bitwright.compress import Model
from bitwright.objectives import TokenReader, require_known

_GENERATED_TOKENS = 24


@dataclass(frozen=True)
class Generated:
    """Generated text, and the number of tokens decoded per second, the prompt not counted."""

    text: str
    tokens_per_second: float


@torch.inference_mode()
def continued(model: Model, prompt: str) -> Generated:
    """Return what the model writes after the prompt, the likeliest token each time."""
    prompt_ids = np.array(model.tokenizer(prompt)["input_ids"], dtype=np.int64)
    require_known(prompt_ids, model, text=f"'{prompt}'")
    reader = TokenReader(model.module)
    logits = reader.read(torch.from_numpy(prompt_ids[None]).to(model.device))
    written, started = [], time.perf_counter()
    for _ in range(_GENERATED_TOKENS):
        token = logits.argmax(dim=-1, keepdim=True)
        written.append(int(token))
        logits = reader.read(token)
    seconds = time.perf_counter() - started
    return Generated(str(model.tokenizer.decode(written)), _GENERATED_TOKENS / seconds)
