"""Forward pass over a text, observed by a tap or by hooks."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import Job, Model
from bitwright.objectives.text.taps import Tap, Tapped
from bitwright.objectives.text.tokens import Tokens
from bitwright.progress import Advance

_SEQUENCES_AT_ONCE = 8


def run_forward(model: Model, tokens: Tokens, advance: Advance, *, tap: Tap | None = None) -> None:
    """Run one forward pass over `tokens`, which `tap` observes.

    Every weight is used by one batch after another, in the order of the text. Of a streamed model all batches pass a block before the next one does.
    """

    def run(ids: NDArray[np.int64]) -> None:
        with torch.inference_mode(), Tapped(model, tap) if tap is not None else nullcontext():
            model.module(torch.from_numpy(ids).to(model.device), use_cache=False)

    for _ in model.each([Job(partial(run, ids), ids.size) for ids in tokens.batches(_SEQUENCES_AT_ONCE)], advance):
        pass
