"""Kullback-Leibler divergence of the next-token distributions, over the whole vocabulary or over the top k tokens.

KL(p ‖ q) = Σ p (log p − log q), p the original, q the changed model, in nats; averaged over tokens.

The top-k version merges all tokens but the original's k most likely ones into one bucket. Merging outcomes never raises a divergence (the log-sum
inequality: Cover and Thomas, Elements of Information Theory, theorem 2.7.1), so it is a lower bound of the full one. EvoPress's sparse KL (Sieberling
et al., 2024, arXiv 2410.14649) renormalises over the k tokens instead, and so misses probability that moves between them and the tail.
"""

from dataclasses import dataclass

from torch import Tensor as Torch
from torch import cat, inf

from bitwright.objectives.objective import TokenObjective


def divergence_of(p: Torch, q: Torch) -> Torch:
    """Return KL(p ‖ q) in nats `(...)` from log-probabilities `(..., n_outcomes)`."""
    return (p.exp() * (p - q)).sum(dim=-1)


@dataclass(frozen=True)
class KullbackLeibler(TokenObjective):
    """KL(original ‖ changed) over the whole vocabulary."""

    name = "kl"
    unit = "nats/token"

    def token_values(self, original: Torch, changed: Torch, following: Torch) -> Torch:  # noqa: ARG002
        """Return KL(original ‖ changed) of each token in nats."""
        return divergence_of(original, changed)


@dataclass(frozen=True)
class TopKullbackLeibler(TokenObjective):
    """KL(original ‖ changed) over the original's `k` most likely tokens and one bucket for all others."""

    k: int = 10
    unit = "nats/token"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be one token at least, not {self.k}")

    @property
    def name(self) -> str:
        """Return e.g. `top10-kl`."""
        return f"top{self.k}-kl"

    def token_values(self, original: Torch, changed: Torch, following: Torch) -> Torch:  # noqa: ARG002
        """Return KL(original ‖ changed) of each token in nats over the original's top `k` and one bucket for the rest."""
        if self.k >= original.shape[-1]:
            return divergence_of(original, changed)
        head = original.topk(self.k, dim=-1).indices
        return divergence_of(_bucketed(original, head), _bucketed(changed, head))


def _bucketed(log_probabilities: Torch, head: Torch) -> Torch:
    """Return the log-probabilities `(..., k + 1)` of the tokens `head` `(..., k)` and of all others together; these are summed, since 1 − Σ is
    imprecise.
    """
    tail = log_probabilities.scatter(-1, head, -inf).logsumexp(dim=-1, keepdim=True)
    return cat([log_probabilities.gather(-1, head), tail], dim=-1)
