"""What makes measured choices differ from an additive table, as a sum of Gaussian effects whose sizes the measurements themselves tell.

    log value = log sum + Σ_k a_k f_k + Σ_k s_k ε_k + share · ε_measured

Each f_k is a Gaussian process over choices of unit size, each ε_k independent between choices. The sizes a, s and `share` maximise the evidence, the
probability of the measurements with all effects integrated out, times a log-normal prior on each size that keeps them sober where measurements are
few (Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2.2 and 5.4). With n measured choices everything happens in
matrices of n × n, so the number of units and formats hardly matters.

`share` says which part of the standard errors is a choice's own. Choices measured on the same sequences are all too high or too low together: that
part shifts every value alike and hides no difference, so taking the errors for independent noise would throw away what the measurements tell.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from bitwright.predictors.plans.cost_shares import Shares, shares_of
from bitwright.predictors.plans.predictor import Predict
from bitwright.spaces import Choices

Floats = NDArray[np.float64]

_AT_ONCE = 1024  # choices predicted at a time
_REACH = 6.0  # a size stays within e^±6 of its guess
_SHARE_GUESS = 0.3
_NUGGET = 1e-10


class Effect(ABC):
    """A Gaussian process over choices, in the logarithm of the divergence.

    Before anything is measured its size is log-normal about `guess`, with a deviation of `spread` in the logarithm; 0 keeps it where it is.
    """

    guess: float
    spread: float

    @abstractmethod
    def covariance(self, first: Shares, second: Shares) -> Floats:
        """Between choices, at size 1: `(n_first, n_second)`."""

    @abstractmethod
    def variance(self, shares: Shares) -> Floats:
        """The diagonal of `covariance(shares, shares)`: `(n,)`."""


class Scatter(ABC):
    """What differs between choices without any rule, in the logarithm of the divergence. `guess` and `spread` as of an `Effect`."""

    guess: float
    spread: float

    @abstractmethod
    def variance(self, shares: Shares) -> Floats:
        """At size 1: `(n,)`."""


@dataclass(frozen=True)
class Prior:
    """All that may make a choice differ from the table."""

    effects: tuple[Effect, ...]
    scatters: tuple[Scatter, ...]


@dataclass(frozen=True, eq=False)
class Learnt:
    """What the measurements tell of a prior: its `squared_sizes`, effects before scatters, and the log evidence without its constant."""

    prior: Prior
    squared_sizes: Floats
    log_evidence: float
    measured: Shares
    _weights: Floats  # C⁻¹ (log value − log sum) of the measured choices
    _precision: Floats  # C⁻¹

    def deviation(self, shares: Shares) -> tuple[Floats, Floats]:
        """Mean and variance of log value − log sum for each choice, each `(n,)`; the variance has the scatter in it, not the measurements' noise."""
        between, alone = np.zeros((len(shares), len(self.measured))), np.zeros(len(shares))
        effects, scatters = np.split(self.squared_sizes, [len(self.prior.effects)])
        for effect, size in zip(self.prior.effects, effects, strict=True):
            between += size * effect.covariance(shares, self.measured)
            alone += size * effect.variance(shares)
        known = np.minimum(np.einsum("ij,jk,ik->i", between, self._precision, between, optimize=True), alone)
        scattered = sum((size * scatter.variance(shares) for scatter, size in zip(self.prior.scatters, scatters, strict=True)), np.zeros(len(shares)))
        return between @ self._weights, alone - known + scattered

    def slopes(self, features: Floats) -> tuple[Floats, Floats]:
        """Φᵀ C⁻¹ z and the diagonal of Φᵀ C⁻¹ Φ for features `(n_measured, n_features)` of the measured choices, each `(n_features,)`.

        The first times a feature's prior variance is the posterior mean of its coefficient.
        """
        return features.T @ self._weights, np.einsum("if,ij,jf->f", features, self._precision, features, optimize=True)


def learn(prior: Prior, shares: Shares, deviations: Floats, relative_errors: Floats) -> Learnt:
    """From measured choices, their `deviations` log value − log sum `(n,)`, and the standard errors of these `(n,)`; n may be 0."""
    parts = [effect.covariance(shares, shares) for effect in prior.effects]  # (n, n) each
    parts += [np.diag(scatter.variance(shares)) for scatter in prior.scatters]
    parts.append(np.diag(relative_errors**2))
    sized: tuple[Effect | Scatter, ...] = (*prior.effects, *prior.scatters)
    guess, spread = np.array([*(part.guess for part in sized), _SHARE_GUESS]), np.array([*(part.spread for part in sized), 1.0])
    squared, evidence = _most_evident(np.array(parts), deviations, guess=guess, spread=spread)
    precision = _inverse(_total(np.array(parts), squared))[0]
    return Learnt(prior, squared[:-1], evidence, shares, precision @ deviations, precision)


def learn_from_values(prior: Prior, shares: Shares, values: Floats, errors: Floats) -> Learnt:
    """The same from divergences `values` `(n,)` and their standard errors `(n,)`.

    A value below its standard error counts as that error, known to within a factor of e; what then is not above zero tells nothing and is left out,
    as is a choice that the table says costs nothing.
    """
    raised = np.maximum(values, errors)
    usable = (raised > 0) & np.isfinite(shares.log_sum)
    raised, errors, shares = raised[usable], errors[usable], shares.only(usable)
    return learn(prior, shares, np.log(raised) - shares.log_sum, errors / raised)


def prediction(table: Floats, learnt: Learnt) -> Predict:
    """Of choices, from a table `(n_units, n_formats)` and what was learnt of how values differ from its sums."""

    def predict(choices: Choices) -> tuple[Floats, Floats]:
        return in_nats(learnt, shares_of(table, choices))

    return predict


def in_nats(learnt: Learnt, shares: Shares) -> tuple[Floats, Floats]:
    """Expected values and standard deviations, each `(n,)`; a choice that costs nothing by the table has 0 and 0.

    The value is the median, which for small deviations is the mean; the deviation is at most the value.
    """
    mean, deviation = np.zeros(len(shares)), np.zeros(len(shares))
    for start in range(0, len(shares), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        some = shares.only(rows)
        costs = np.isfinite(some.log_sum)
        log_ratio, variance = learnt.deviation(some.only(costs))
        value = np.exp(some.log_sum[costs] + log_ratio)
        mean[rows][costs] = value
        deviation[rows][costs] = value * np.sqrt(np.minimum(variance, 1.0))
    return mean, deviation


def _most_evident(parts: Floats, deviations: Floats, *, guess: Floats, spread: Floats) -> tuple[Floats, float]:
    """The squared size of each of `parts` `(n_parts, n, n)`, and the log evidence at them.

    `guess` and `spread` are `(n_parts,)`. The last part is the measurements' noise, of size at most 1.
    """
    logs, free = np.log(guess), spread > 0
    middle = logs[free]

    def loss(free_logs: Floats) -> tuple[float, Floats]:
        logs[free] = free_logs
        minus_evidence, gradient = _minus_log_evidence(parts, deviations, np.exp(2 * logs))
        off = (free_logs - middle) / spread[free]
        return minus_evidence + float(off @ off) / 2, gradient[free] + off / spread[free]

    bounds = [(log - _REACH, log + _REACH) for log in middle]
    bounds[-1] = (bounds[-1][0], 0.0)
    logs[free] = minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=bounds).x
    squared = np.exp(2 * logs)
    return squared, -_minus_log_evidence(parts, deviations, squared)[0]


def _minus_log_evidence(parts: Floats, deviations: Floats, squared: Floats) -> tuple[float, Floats]:
    """½ zᵀC⁻¹z + ½ log |C|, without the constant, and its slopes in the logarithms of the sizes (Rasmussen & Williams, equations 5.8 and 5.9)."""
    precision, log_determinant = _inverse(_total(parts, squared))
    weights = precision @ deviations
    slopes = -squared * ((np.outer(weights, weights) - precision) * parts).sum(axis=(1, 2))
    return float(deviations @ weights) / 2 + log_determinant / 2, slopes


def _total(parts: Floats, squared: Floats) -> Floats:
    return reduce(np.add, (size * part for size, part in zip(squared, parts, strict=True)))


def _inverse(covariance: Floats) -> tuple[Floats, float]:
    """C⁻¹ and log |C|."""
    n = len(covariance)
    if not n:
        return covariance, 0.0
    factor = cho_factor(covariance + _NUGGET * np.eye(n), lower=True)
    return cho_solve(factor, np.eye(n)), 2 * float(np.log(np.diag(factor[0])).sum())
