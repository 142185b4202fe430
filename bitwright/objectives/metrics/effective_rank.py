"""Effective rank of the last hidden states: how many directions a model's representation of a text really uses.

Source: Wei et al., NeurIPS 2024, "Diff-eRank" (arXiv 2401.17139), used on compressed models by ACBench (Dong et al., ICML 2025, arXiv 2505.19433).
Of a sequence's hidden states after the last layer and its norm, less their mean and each scaled to length one, Z `(length, n_hidden)`, the
covariance ZᵀZ / length has trace one; H is the entropy of its eigenvalues, and exp of the mean H over sequences is the effective rank.
What differs: the models compared are the original and the changed one, and the distance is the absolute difference, to be minimised.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.objectives.measurement import standard_error
from bitwright.objectives.objective import Estimate, ModelObjective, Preparation
from bitwright.objectives.text.tokens import Tokens

_SEQUENCES_AT_ONCE = 8
_TINY = 1e-300


@torch.inference_mode()
def representation_entropies(model: Model, tokens: Tokens) -> NDArray[np.float64]:
    """H of each sequence in nats `(n_sequences,)`; exp of it is the sequence's effective rank, at most `min(length, n_hidden)`."""
    body = model.module.base_model
    batches = (torch.from_numpy(batch).to(model.device) for batch in tokens.batches(_SEQUENCES_AT_ONCE))
    found: list[Torch] = [_entropies(body(ids, use_cache=False).last_hidden_state) for ids in batches]
    entropies: NDArray[np.float64] = torch.cat(found).numpy()
    return entropies


@dataclass(frozen=True)
class EffectiveRank(Preparation):
    """Reads the original's effective rank on the text."""

    name = "erank"

    def prepare(self, original: Model, tokens: Tokens) -> "EffectiveRankDifference":
        """See `Preparation.prepare`."""
        return EffectiveRankDifference(representation_entropies(original, tokens), tokens)


@dataclass(frozen=True, eq=False)
class EffectiveRankDifference(ModelObjective):
    """|eRank(changed) − eRank(original)| on `tokens`, of which the original's `entropies` `(n_sequences,)` are known."""

    entropies: NDArray[np.float64]
    tokens: Tokens
    name = "erank"
    unit = "dimensions"

    def of_model(self, model: Model) -> Estimate:
        """The difference; its standard error is by the delta method, from differences paired by sequence."""
        entropies = representation_entropies(model, self.tokens)
        before, after = np.exp(self.entropies.mean()), np.exp(entropies.mean())
        return Estimate(abs(float(after - before)), standard_error(after * entropies - before * self.entropies))


def _entropies(hidden: Torch) -> Torch:
    """H of each sequence `(n,)` float64 of `hidden` `(n, length, n_hidden)`; 0 where all hidden states are the same."""
    centred = hidden.double().cpu() - hidden.double().cpu().mean(dim=1, keepdim=True)
    rows = torch.nn.functional.normalize(centred, dim=-1)
    eigenvalues = torch.linalg.svdvals(rows).square()
    shares: Torch = eigenvalues / eigenvalues.sum(dim=-1, keepdim=True).clamp(min=_TINY)
    return -torch.xlogy(shares, shares).sum(dim=-1)
