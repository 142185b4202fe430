"""Rank correlation of the original's top k tokens between the two models, as 1 − correlation.

Source: ACBench (Dong et al., ICML 2025, arXiv 2505.19433), top-k ranking correlation. 0 is the same order, 2 the reverse. What differs: a pair of
tokens tied in one model takes its order in the other, so that the original, whose log-probabilities are stored as float16, has distance zero from
itself. Without ties both are one minus the textbook τ and ρ.

ACBench's third measure, the energy −T log Σ exp(logit / T), is left out: it needs logits, which cannot be recovered from log-probabilities.
"""

from dataclasses import dataclass

from torch import Tensor as Torch

from bitwright.objectives.objective import TokenObjective


@dataclass(frozen=True)
class Kendall(TokenObjective):
    """1 − Kendall's τ: twice the share of discordant pairs among the original's `k` most likely tokens."""

    k: int = 10
    unit = "1 − τ"

    def __post_init__(self) -> None:
        _check(self.k)

    @property
    def name(self) -> str:
        """Return e.g. `top10-kendall`."""
        return f"top{self.k}-kendall"

    def token_values(self, original: Torch, changed: Torch, following: Torch) -> Torch:  # noqa: ARG002
        """Return one minus Kendall's τ of each token's top `k`."""
        before, after = _orders(original, changed, self.k)
        k = before.shape[-1]
        return 2 * (before * after < 0).float().sum(dim=(-2, -1)) / (k * (k - 1))


@dataclass(frozen=True)
class Spearman(TokenObjective):
    """1 − Spearman's ρ: 6 Σ d² / (k (k² − 1)), d the rank differences of the original's `k` most likely tokens."""

    k: int = 10
    unit = "1 − ρ"

    def __post_init__(self) -> None:
        _check(self.k)

    @property
    def name(self) -> str:
        """Return e.g. `top10-spearman`."""
        return f"top{self.k}-spearman"

    def token_values(self, original: Torch, changed: Torch, following: Torch) -> Torch:  # noqa: ARG002
        """Return one minus Spearman's ρ of each token's top `k`."""
        before, after = _orders(original, changed, self.k)
        # half the sum of a token's orders against all others is its rank, counted from the middle rank
        differences = (before - after).sum(dim=-1) / 2
        k = before.shape[-1]
        return 6 * differences.square().sum(dim=-1) / (k * (k * k - 1))


def _orders(original: Torch, changed: Torch, k: int) -> tuple[Torch, Torch]:
    """Return each model's order of every pair of the original's `k` most likely tokens `(n, k, k)`: +1 above, −1 below, 0 tied in both."""
    head = original.topk(min(k, original.shape[-1]), dim=-1)
    before, after = _signs(head.values), _signs(changed.gather(-1, head.indices))
    return before.where(before != 0, after), after.where(after != 0, before)


def _signs(values: Torch) -> Torch:
    return (values[..., :, None] - values[..., None, :]).sign()


def _check(k: int) -> None:
    if k < 2:
        raise ValueError(f"a rank correlation needs two tokens at least, not {k}")
