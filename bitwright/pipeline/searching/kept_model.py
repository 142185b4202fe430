"""Original model without some of its parts, on a few calibration sequences: how published methods test what they take away."""

from collections.abc import Callable

import torch
from torch import Tensor as Torch

from bitwright.compress import Model, applied, narrowed_weights
from bitwright.methods import KeptModel
from bitwright.objectives import Tokens
from bitwright.spaces import Structure

_N_SEQUENCES = 5  # as many sentences as LaCo takes


def kept_on(model: Model, tokens: Tokens) -> Callable[[Structure], KeptModel]:
    """Return a function that measures the model of which only a structure is kept, in its original weights, which it must have then."""
    ids = torch.from_numpy(tokens.ids[:_N_SEQUENCES]).to(model.device)
    states = list[Torch]()

    def measured(structure: Structure) -> KeptModel:
        if not states:
            states.append(_last_states(model, ids)[0])
        with applied(model, narrowed_weights(model, {}, structure)):
            kept, nats = _last_states(model, ids)
        return KeptModel(float(torch.cosine_similarity(kept.flatten(1), states[0].flatten(1)).mean()), nats)

    return measured


def _last_states(model: Model, ids: Torch) -> tuple[Torch, float]:
    """Return the last hidden states `(n_sequences, length, width)`, behind the final norm, and the cross-entropy in nats/token."""
    with torch.no_grad():
        found = model.module(ids, use_cache=False, output_hidden_states=True)
    nats = torch.nn.functional.cross_entropy(found.logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
    return found.hidden_states[-1].double(), float(nats)
