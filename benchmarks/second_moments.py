"""Second moments of the inputs of matrices on a text, with which the benchmarks of roundings quantize."""

from collections.abc import Iterable, Mapping

import torch

from bitwright.compress import Floats, Model
from bitwright.objectives import Tokens, collect_moments

SEQUENCES_AT_ONCE = 8


def moments_of(model: Model, names: Iterable[str], text: Tokens, *, weigh: bool = True) -> Mapping[str, Floats]:
    """Second moments of the inputs of the named tensors on a text, by name; with `weigh` False all tokens count alike."""
    with torch.no_grad(), collect_moments(model, list(names), weigh=weigh) as found:
        for ids in text.batches(SEQUENCES_AT_ONCE):
            model.module(torch.from_numpy(ids), use_cache=False)
    return found
