"""A table whose prices may be wrong and whose units' errors may add up or cancel in pairs: `ridge` with interactions, shrunk hard.

Two changes of weights that each cost r_u and r_v of a sum may cost anything up to 2 √(r_u r_v) more or less together, the cross term of a quadratic
form. So a pair's effect is √(r_u r_v) φ_uv. Pairs of neighbours share one variance for their φ. Of all other pairs, those that the measurements
support are added one by one: a single effect φ of feature q with free variance raises the log evidence by at most

    ½ (g − 1 − log g),   g = (qᵀC⁻¹z)² / qᵀC⁻¹q,   at the variance (g − 1) / qᵀC⁻¹q

(Tipping & Faul, "Fast marginal likelihood maximisation for sparse Bayesian models", AISTATS 2003, equations 17 to 22). A pair has to gain more than
the logarithm of the number of pairs that it was picked from: that much the best of them gains by chance.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.plans.additive_gp import Learnt, learn_from_values, prediction
from bitwright.predictors.plans.cost_shares import Shares, shares_of
from bitwright.predictors.plans.gp_kernels import PairErrors, products
from bitwright.predictors.plans.predictor import Predict, Predictor
from bitwright.predictors.plans.ridge import wrong_prices
from bitwright.spaces import Choices

_PAIRS_AT_MOST = 8
_PAIRS_AT_ONCE = 1 << 14


@dataclass(frozen=True, eq=False)
class PairwisePredictor(Predictor):
    """Around a `table` `(n_units, n_formats)` in any units; `neighbours` `(n_pairs, 2)` are units that are thought to interact, as those that follow
    each other in the model (`following`). It can predict before anything is measured.
    """

    table: NDArray[np.float64]
    neighbours: NDArray[np.int64]

    def fit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        """See `Predictor.fit`; no number of choices is too small."""
        shares = shares_of(self.table, choices)
        prior = wrong_prices(shares, self.table.shape[1])
        if len(self.neighbours):
            prior = replace(prior, effects=(*prior.effects, PairErrors(self.neighbours)))
        learnt = learn_from_values(prior, shares, values, errors)
        taken = self.neighbours
        for _ in range(_PAIRS_AT_MOST):
            pair, size = _most_supported(learnt, taken)
            if not len(pair):
                break
            taken = np.concatenate([taken, pair])
            prior = replace(prior, effects=(*prior.effects, PairErrors(pair, guess=size)))
            learnt = learn_from_values(prior, shares, values, errors)
        return prediction(self.table, learnt)


def following(n_units: int) -> NDArray[np.int64]:
    """Each unit and the one after it `(n_units - 1, 2)`."""
    return np.column_stack([np.arange(n_units - 1), np.arange(1, n_units)])


def _most_supported(learnt: Learnt, taken: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
    """The pair of units `(0 or 1, 2)` beside those `taken` `(n_taken, 2)` that the measurements support most, and the size of its effect."""
    pairs = _others(learnt.measured, taken)
    if not len(pairs):
        return pairs, 0.0
    gain, variance = np.concatenate([_gains(learnt, pairs[i : i + _PAIRS_AT_ONCE]) for i in range(0, len(pairs), _PAIRS_AT_ONCE)], axis=1)
    best = int(gain.argmax())
    if gain[best] <= np.log(len(pairs)):
        return pairs[:0], 0.0
    return pairs[best : best + 1], float(np.sqrt(variance[best]))


def _others(measured: Shares, taken: NDArray[np.int64]) -> NDArray[np.int64]:
    n_units = measured.parts.shape[1]
    left = np.triu(np.ones((n_units, n_units), dtype=np.bool_), k=1)
    left[taken.min(axis=1), taken.max(axis=1)] = False
    return np.argwhere(left)


def _gains(learnt: Learnt, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """The gain in log evidence and the best variance of the effect of each pair: `(2, n_pairs)`."""
    slope, information = learnt.slopes(products(learnt.measured, pairs))
    known = information > 0
    signal = np.divide(slope**2, information, out=np.ones(len(pairs)), where=known)
    helps = signal > 1
    signal = np.where(helps, signal, 1.0)
    gain = (signal - 1 - np.log(signal)) / 2
    return np.stack([gain, np.divide(signal - 1, information, out=np.zeros(len(pairs)), where=known)])
