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
    """Return the log-probabilities `(n_contexts, n_vocabulary)` of the token after each context `(length,)`; contexts may differ in length, and what
    one begins with is computed with it.
    """
    groups = _groups(contexts)
    batches = [groups[start : start + _SEQUENCES_AT_ONCE] for start in range(0, len(groups), _SEQUENCES_AT_ONCE)]
    rows = np.concatenate([*model.each([Job(partial(_of_batch, model, contexts, batch), 0) for batch in batches], ignore)])
    found = np.empty_like(rows)
    found[[i for group in groups for i in group]] = rows
    return found


def _groups(contexts: Sequence[NDArray[np.int64]]) -> list[list[int]]:
    """Return the indices of `contexts` in groups of those that the first of the group begins with."""
    groups = list[list[int]]()
    for i in sorted(range(len(contexts)), key=lambda i: -len(contexts[i])):
        begun = (group for group in groups if np.array_equal(contexts[group[0]][: len(contexts[i])], contexts[i]))
        group = next(begun, None)
        if group is None:
            groups.append([i])
        else:
            group.append(i)
    return groups


@torch.inference_mode()
def _of_batch(model: Model, contexts: Sequence[NDArray[np.int64]], groups: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Return the log-probabilities `(n, n_vocabulary)` after the contexts of `groups`, group by group."""
    longest = len(contexts[groups[0][0]])
    # A causal model cannot see tokens after the context, so short contexts are padded at the end with any token.
    ids = np.stack([np.pad(contexts[group[0]], (0, longest - len(contexts[group[0]]))) for group in groups])
    hidden = torch.from_numpy(ids).to(model.device)
    ends = [(row, len(contexts[i]) - 1) for row, group in enumerate(groups) for i in group]
    keep = torch.tensor(sorted({end for _, end in ends}), device=model.device)
    logits = model.module(hidden, use_cache=False, logits_to_keep=keep).logits.double()
    last = [logits[row, int((keep == end).nonzero())] for row, end in ends]
    found: NDArray[np.float64] = torch.stack(last).log_softmax(dim=-1).cpu().numpy()
    return found
