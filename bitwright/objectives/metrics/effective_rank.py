"""Effective rank of the last hidden states: the effective number of directions in a model's representation of a text.

Source: Wei et al., NeurIPS 2024, "Diff-eRank" (arXiv 2401.17139), used on compressed models by ACBench (Dong et al., ICML 2025, arXiv 2505.19433).
Let Z `(length, n_hidden)` be a sequence's hidden states after the last layer and its norm, centred and each scaled to unit length. Its covariance
ZᵀZ / length has trace one, H is the entropy of the eigenvalues, and exp of the mean H over sequences is the effective rank.
What differs: the original and the changed model are compared, and the objective is the absolute difference of their effective ranks.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.objectives.measurement import Estimate, standard_error
from bitwright.objectives.objective import ModelObjective, Preparation
from bitwright.objectives.text.tokens import Tokens

_SEQUENCES_AT_ONCE = 8
_TINY = 1e-300


@torch.inference_mode()
def representation_entropies(model: Model, tokens: Tokens) -> NDArray[np.float64]:
    """Return the entropy H of each sequence in nats `(n_sequences,)`; exp(H) is its effective rank, at most `min(length, n_hidden)`."""
    body = model.module.base_model
    batches = (torch.from_numpy(batch).to(model.device) for batch in tokens.batches(_SEQUENCES_AT_ONCE))
    found: list[Torch] = [_entropies(body(ids, use_cache=False).last_hidden_state) for ids in batches]
    entropies: NDArray[np.float64] = torch.cat(found).numpy()
    return entropies


@dataclass(frozen=True)
class EffectiveRank(Preparation):
    """Preparation of the effective-rank objective: measures the original on the text."""

    name = "erank"

    def prepare(self, original: Model, tokens: Tokens) -> "EffectiveRankDifference":
        """Measure the representation entropies of the original on `tokens`."""
        return EffectiveRankDifference(representation_entropies(original, tokens), tokens)


@dataclass(frozen=True, eq=False)
class EffectiveRankDifference(ModelObjective):
    """Absolute difference |eRank(changed) − eRank(original)| on `tokens`, from the original's `entropies` `(n_sequences,)`."""

    entropies: NDArray[np.float64]
    tokens: Tokens
    name = "erank"
    unit = "dimensions"
    reads_text = True

    def evaluate_model(self, model: Model) -> Estimate:
        """Return the difference; its standard error is by the delta method, from differences paired by sequence."""
        entropies = representation_entropies(model, self.tokens)
        before, after = np.exp(self.entropies.mean()), np.exp(entropies.mean())
        return Estimate(abs(float(after - before)), standard_error(after * entropies - before * self.entropies))


def _entropies(hidden: Torch) -> Torch:
    """Return the entropy H of each sequence `(n,)` float64 of `hidden` `(n, length, n_hidden)`; 0 where all hidden states are the same."""
    centred = hidden.double().cpu() - hidden.double().cpu().mean(dim=1, keepdim=True)
    rows = torch.nn.functional.normalize(centred, dim=-1)
    eigenvalues = torch.linalg.svdvals(rows).square()
    shares: Torch = eigenvalues / eigenvalues.sum(dim=-1, keepdim=True).clamp(min=_TINY)
    return -torch.xlogy(shares, shares).sum(dim=-1)
