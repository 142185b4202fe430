"""Prices of experts that are taken away: REAP's saliency as a sieve, then measured, one at a time and together.

The saliency (`expert_saliencies` of `bitwright.predictors`) orders the experts of a layer; the last of them are dropped one at a time and put in the
order of what that costs. Then the first 7/8, 3/4, … of the experts are priced, all others dropped at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SIEVED = 8  # experts of a layer that are dropped one at a time


@dataclass(frozen=True)
class ExpertPrices:
    """Experts of a layer `by_worth`, the best first, and the nats/token of keeping the first n of them, by n."""

    by_worth: tuple[int, ...]
    nats: dict[int, float]


def expert_prices(saliency: NDArray[np.float64], numbers: Sequence[int], measured: Callable[[Sequence[int]], float]) -> ExpertPrices:
    """Price the experts of a layer by their `saliency` `(n_experts,)` at the `numbers` that may be kept, without that of all. `measured` returns the
    nats/token of keeping some alone.
    """
    order = np.argsort(-saliency, kind="stable").tolist()
    best, sieved = order[: max(len(order) - _SIEVED, 0)], order[-_SIEVED:]
    alone = {expert: measured(sorted(other for other in order if other != expert)) for expert in sieved}
    by_worth = (*best, *sorted(sieved, key=lambda expert: -alone[expert]))
    return ExpertPrices(by_worth, {n: measured(sorted(by_worth[:n])) for n in numbers})
