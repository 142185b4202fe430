"""Pairwise predictor: `ridge` with interactions between pairs of units, strongly regularised.

Two changes of weights with cost shares r_u and r_v may together cost up to 2 √(r_u r_v) more or less than their sum, the cross term of a quadratic
form. So the interaction of a pair is √(r_u r_v) φ_uv. Pairs of neighbours share one variance for their φ. Of all other pairs, those that the
measurements support are added one at a time: a single coefficient φ of a feature q with free variance raises the log evidence by at most

    ½ (g − 1 − log g),   g = (qᵀC⁻¹z)² / qᵀC⁻¹q,   at the variance (g − 1) / qᵀC⁻¹q

(Tipping & Faul, "Fast marginal likelihood maximisation for sparse Bayesian models", AISTATS 2003, equations 17 to 22). A pair is added only if its
gain exceeds the logarithm of the number of candidate pairs: that much the best of them gains by chance.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.plans.additive_gp import Posterior, fit_posterior_to_values, predict_around
from bitwright.predictors.plans.cost_shares import CostShares, cost_shares
from bitwright.predictors.plans.gp_kernels import PairErrors, products
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.plans.ridge import price_error_prior
from bitwright.spaces import Choices

_PAIRS_AT_MOST = 8
_PAIRS_AT_ONCE = 1 << 14


@dataclass(frozen=True, eq=False)
class PairwisePredictor(Predictor):
    """Ridge with interactions around a `table` `(n_units, n_formats)` in any units. `neighbours` `(n_pairs, 2)` are pairs expected to interact, such
    as consecutive units (`following`). It can predict without measurements.
    """

    table: NDArray[np.float64]
    neighbours: NDArray[np.int64]

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        """Fit errors of prices and of pairs of neighbours to any number of choices."""
        shares = cost_shares(self.table, choices)
        prior = price_error_prior(shares, self.table.shape[1])
        if len(self.neighbours):
            prior = replace(prior, kernels=(*prior.kernels, PairErrors(self.neighbours)))
        posterior = fit_posterior_to_values(prior, shares, values, errors)
        taken = self.neighbours
        for _ in range(_PAIRS_AT_MOST):
            pair, size = _most_supported(posterior, taken)
            if not len(pair):
                break
            taken = np.concatenate([taken, pair])
            prior = replace(prior, kernels=(*prior.kernels, PairErrors(pair, prior_median=size)))
            posterior = fit_posterior_to_values(prior, shares, values, errors)
        return predict_around(self.table, posterior)


def following(n_units: int) -> NDArray[np.int64]:
    """Return the pairs of consecutive units `(n_units - 1, 2)`."""
    return np.column_stack([np.arange(n_units - 1), np.arange(1, n_units)])


def _most_supported(posterior: Posterior, taken: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
    """Return the pair of units `(0 or 1, 2)`, not among `taken` `(n_taken, 2)`, that raises the evidence most, and its interaction's amplitude."""
    pairs = _others(posterior.measured, taken)
    if not len(pairs):
        return pairs, 0.0
    gain, variance = np.concatenate([_gains(posterior, pairs[i : i + _PAIRS_AT_ONCE]) for i in range(0, len(pairs), _PAIRS_AT_ONCE)], axis=1)
    best = int(gain.argmax())
    if gain[best] <= np.log(len(pairs)):
        return pairs[:0], 0.0
    return pairs[best : best + 1], float(np.sqrt(variance[best]))


def _others(measured: CostShares, taken: NDArray[np.int64]) -> NDArray[np.int64]:
    n_units = measured.parts.shape[1]
    left = np.triu(np.ones((n_units, n_units), dtype=np.bool_), k=1)
    left[taken.min(axis=1), taken.max(axis=1)] = False
    return np.argwhere(left)


def _gains(posterior: Posterior, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the gain in log evidence of each pair and the variance at which it is reached: `(2, n_pairs)`."""
    slope, information = posterior.slopes(products(posterior.measured, pairs))
    known = information > 0
    signal = np.divide(slope**2, information, out=np.ones(len(pairs)), where=known)
    helps = signal > 1
    signal = np.where(helps, signal, 1.0)
    gain = (signal - 1 - np.log(signal)) / 2
    return np.stack([gain, np.divide(signal - 1, information, out=np.zeros(len(pairs)), where=known)])
