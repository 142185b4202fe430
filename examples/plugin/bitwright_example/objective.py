"""Total variation distance ½ Σ |p − q| of next-token distributions: the largest change of the probability of any event."""

from torch import Tensor

from bitwright.objectives import TokenObjective


class TotalVariation(TokenObjective):
    """Mean total variation distance from the original model, from 0 to 1."""

    @property
    def name(self) -> str:
        return "total-variation"

    @property
    def unit(self) -> str:
        return "share"

    def token_values(self, original: Tensor, changed: Tensor, following: Tensor) -> Tensor:
        """Return the total variation distance of each token."""
        return (original.exp() - changed.exp()).abs().sum(dim=-1) / 2


TOTAL_VARIATION = TotalVariation()
