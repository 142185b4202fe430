"""Shapley values of units: the mean marginal loss of quantizing a unit over random orders of quantizing all units, as in CoopQ.

Source: the progressive Shapley estimation of CoopQ (ACL Findings 2026). Starting with all units in the high format, units change to the low one in
the order of a random permutation; the increase of the loss at each step is the unit's marginal. The mean over permutations estimates the Shapley
value (Castro et al., 2009), and the marginals of two units covary where their errors interact. For every permutation the marginals sum to the loss
from all-high to all-low.

CoopQ minimises aᵀq + qᵀKq over q in {0, 1} (1 where a unit is low), with K = (1 − α) Cov + α diag(Cov) and a_i = φ_i − Σ_{j≠i} K_ij.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.progress import Progress
from bitwright.spaces import Choice


@dataclass(frozen=True, eq=False)
class Shapley:
    """Marginal losses `(n_permutations, n_units)`, in the unit of the measured value."""

    marginals: NDArray[np.float64]

    def mean(self) -> NDArray[np.float64]:
        """Return the estimated Shapley values φ `(n_units,)`."""
        mean: NDArray[np.float64] = self.marginals.mean(axis=0)
        return mean

    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance of the marginals over permutations `(n_units, n_units)`.

        Raises:
            ValueError: fewer than two permutations.
        """
        if len(self.marginals) < 2:
            raise ValueError("a covariance needs two permutations at least")
        return np.atleast_2d(np.cov(self.marginals, rowvar=False))

    def interactions(self, alpha: float = 0.5) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return CoopQ's a `(n_units,)` and K `(n_units, n_units)`; `alpha` 1 leaves only K's diagonal.

        Raises:
            ValueError: fewer than two permutations.
        """
        covariance = self.covariance()
        k = (1 - alpha) * covariance + alpha * np.diag(np.diag(covariance))
        return self.mean() - (k.sum(axis=1) - np.diag(k)), k


def random_orders(n_units: int, n_permutations: int, *, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw random permutations of the units `(n_permutations, n_units)`."""
    return rng.permuted(np.tile(np.arange(n_units), (n_permutations, 1)), axis=1)


def shapley_marginals(value: Callable[[Choice], float], *, high: Choice, low: Choice, orders: NDArray[np.int64], progress: Progress) -> Shapley:
    """Measure the marginal loss of each unit as units change from `high` to `low`, both `(n_units,)`, in each of `orders` `(n_permutations,
    n_units)`; `value(choice)` measures a choice.

    `n_units − 1` evaluations for each permutation, plus two.
    """
    marginals = np.zeros(orders.shape)
    ends = value(high), value(low)
    with progress.stage("Quantizing units in random orders", marginals.size) as advance:
        for row, order in zip(marginals, orders, strict=True):
            choice, before = high.copy(), ends[0]
            for u in order:
                choice[u] = low[u]
                after = ends[1] if u == order[-1] else value(choice)
                row[u], before = after - before, after
                advance(1)
    return Shapley(marginals)


def shapley_table(values: NDArray[np.float64], low: Choice, *, relative_error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make a table `(n_units, n_formats)` from the value `(n_units,)` of each unit in its format of `low`.

    The values cover two formats of a unit only, so other formats cost in proportion to their `relative_error` `(n_units, n_formats)`, squared. A unit
    whose low format has no error gets prices of 0.
    """
    at_low = relative_error[np.arange(len(low)), low][:, None]
    share = np.divide(relative_error, at_low, out=np.zeros_like(relative_error), where=at_low > 0)
    return values[:, None] * np.where(np.isnan(relative_error), np.nan, share)
