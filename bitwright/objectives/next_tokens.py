"""Log-probabilities of the next token after contexts of any length."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import Job, Model
from bitwright.progress import ignore

_SEQUENCES_AT_ONCE = 8


def next_token_log_probabilities(model: Model, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the log-probabilities `(n_contexts, n_vocabulary)` of the token after each context `(length,)`; contexts may differ in length."""
    batches = [contexts[start : start + _SEQUENCES_AT_ONCE] for start in range(0, len(contexts), _SEQUENCES_AT_ONCE)]
    return np.concatenate([*model.each([Job(partial(_of_batch, model, batch), 0) for batch in batches], ignore)])


@torch.inference_mode()
def _of_batch(model: Model, batch: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    lengths = [len(context) for context in batch]
    # A causal model cannot see tokens after the context, so short contexts are padded at the end with any token.
    ids = np.stack([np.pad(context, (0, max(lengths) - len(context))) for context in batch])
    hidden = torch.from_numpy(ids).to(model.device)
    keep = torch.tensor(sorted({length - 1 for length in lengths}), device=model.device)
    logits = model.module(hidden, use_cache=False, logits_to_keep=keep).logits.double()
    last = [logits[i, int((keep == length - 1).nonzero())] for i, length in enumerate(lengths)]
    found: NDArray[np.float64] = torch.stack(last).log_softmax(dim=-1).cpu().numpy()
    return found
