"""Gaussian process over choices: the log ratio of measured divergence to an additive table's sum, with a sum of kernels and noise terms.

    log value = log sum + Σ_k a_k f_k + Σ_k s_k ε_k + share · ε_measured

Each f_k is a Gaussian process of unit amplitude, each ε_k is independent between choices. The amplitudes a, s and `share` are hyperparameters: they
maximise the marginal likelihood times a log-normal prior on each, which regularises them where measurements are few (Rasmussen & Williams, "Gaussian
Processes for Machine Learning", 2006, chapters 2.2 and 5.4). With n measured choices all matrices are n × n, so the number of units and formats
hardly matters.

`share` is the fraction of the standard errors that is independent between choices. Choices measured on the same sequences have mostly a common error,
which shifts all values alike and hides no difference; taking the whole error for independent noise would discard information.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from bitwright.predictors.plans.cost_shares import CostShares, cost_shares
from bitwright.predictors.plans.predictor import Predict
from bitwright.spaces import Choices

Floats = NDArray[np.float64]

_AT_ONCE = 1024  # choices predicted at a time
_LOG_BOUND = 6.0  # an amplitude stays within e^±6 of its prior median
_SHARE_MEDIAN = 0.3
_NUGGET = 1e-10


class Kernel(ABC):
    """Kernel of a Gaussian process over choices, in the logarithm of the divergence.

    The prior of its amplitude is log-normal with median `prior_median` and standard deviation `prior_log_std` of the logarithm; 0 fixes the
    amplitude.
    """

    prior_median: float
    prior_log_std: float

    @abstractmethod
    def covariance(self, first: CostShares, second: CostShares) -> Floats:
        """Return the covariance between choices at amplitude 1: `(n_first, n_second)`."""

    @abstractmethod
    def variance(self, shares: CostShares) -> Floats:
        """Return the diagonal of `covariance(shares, shares)`: `(n,)`."""


class NoiseTerm(ABC):
    """Noise independent between choices, in the logarithm of the divergence; `prior_median` and `prior_log_std` as in `Kernel`."""

    prior_median: float
    prior_log_std: float

    @abstractmethod
    def variance(self, shares: CostShares) -> Floats:
        """Return the variance of each choice at amplitude 1: `(n,)`."""


@dataclass(frozen=True)
class Prior:
    """Kernels and noise terms of the log ratio of a choice's divergence to the table's sum."""

    kernels: tuple[Kernel, ...]
    noise_terms: tuple[NoiseTerm, ...]


@dataclass(frozen=True, eq=False)
class Posterior:
    """Posterior of a prior after measurements: its fitted `variances`, kernels before noise terms, and the log evidence without its constant."""

    prior: Prior
    variances: Floats
    log_evidence: float
    measured: CostShares
    _weights: Floats  # C⁻¹ (log value − log sum) of the measured choices
    _precision: Floats  # C⁻¹

    def log_ratio(self, shares: CostShares) -> tuple[Floats, Floats]:
        """Predict log value − log sum of each choice: mean and variance, each `(n,)`; the variance includes noise terms, not measurement noise."""
        cross, marginal = np.zeros((len(shares), len(self.measured))), np.zeros(len(shares))
        of_kernels, of_noise = np.split(self.variances, [len(self.prior.kernels)])
        for kernel, variance in zip(self.prior.kernels, of_kernels, strict=True):
            cross += variance * kernel.covariance(shares, self.measured)
            marginal += variance * kernel.variance(shares)
        explained = np.minimum(np.einsum("ij,jk,ik->i", cross, self._precision, cross, optimize=True), marginal)
        noise = sum(
            (variance * term.variance(shares) for term, variance in zip(self.prior.noise_terms, of_noise, strict=True)), np.zeros(len(shares))
        )
        return cross @ self._weights, marginal - explained + noise

    def slopes(self, features: Floats) -> tuple[Floats, Floats]:
        """Return Φᵀ C⁻¹ z and the diagonal of Φᵀ C⁻¹ Φ for features `(n_measured, n_features)` of the measured choices, each `(n_features,)`.

        A feature's prior variance times the first is the posterior mean of its coefficient.
        """
        return features.T @ self._weights, np.einsum("if,ij,jf->f", features, self._precision, features, optimize=True)


def fit_posterior(prior: Prior, shares: CostShares, deviations: Floats, relative_errors: Floats) -> Posterior:
    """Fit the hyperparameters to measured choices with `deviations` log value − log sum `(n,)` and their standard errors `(n,)`; n may be 0."""
    parts = [kernel.covariance(shares, shares) for kernel in prior.kernels]  # (n, n) each
    parts += [np.diag(term.variance(shares)) for term in prior.noise_terms]
    parts.append(np.diag(relative_errors**2))
    terms: tuple[Kernel | NoiseTerm, ...] = (*prior.kernels, *prior.noise_terms)
    medians = np.array([*(term.prior_median for term in terms), _SHARE_MEDIAN])
    log_stds = np.array([*(term.prior_log_std for term in terms), 1.0])
    squared, evidence = _maximise_evidence(np.array(parts), deviations, medians=medians, log_stds=log_stds)
    precision = _inverse(_total(np.array(parts), squared))[0]
    return Posterior(prior, squared[:-1], evidence, shares, precision @ deviations, precision)


def fit_posterior_to_values(prior: Prior, shares: CostShares, values: Floats, errors: Floats) -> Posterior:
    """Fit the hyperparameters to divergences `values` `(n,)` with standard errors `errors` `(n,)`.

    A value below its standard error is raised to it, with a relative error of 1. Values that are still not above zero are left out, as are choices
    with a table sum of zero.
    """
    raised = np.maximum(values, errors)
    usable = (raised > 0) & np.isfinite(shares.log_sum)
    raised, errors, shares = raised[usable], errors[usable], shares.only(usable)
    return fit_posterior(prior, shares, np.log(raised) - shares.log_sum, errors / raised)


def predict_around(table: Floats, posterior: Posterior) -> Predict:
    """Return a function that predicts choices from a table `(n_units, n_formats)` and the posterior of the log ratio to its sums."""

    def predict(choices: Choices) -> tuple[Floats, Floats]:
        return predict_nats(posterior, cost_shares(table, choices))

    return predict


def predict_nats(posterior: Posterior, shares: CostShares) -> tuple[Floats, Floats]:
    """Predict divergences and their standard deviations, each `(n,)`, in the units of the measured values; both are 0 where the table's sum is 0.

    The prediction is the median, which for small deviations is the mean; the standard deviation is at most the prediction.
    """
    mean, deviation = np.zeros(len(shares)), np.zeros(len(shares))
    for start in range(0, len(shares), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        some = shares.only(rows)
        costs = np.isfinite(some.log_sum)
        log_ratio, variance = posterior.log_ratio(some.only(costs))
        value = np.exp(some.log_sum[costs] + log_ratio)
        mean[rows][costs] = value
        deviation[rows][costs] = value * np.sqrt(np.minimum(variance, 1.0))
    return mean, deviation


def _maximise_evidence(parts: Floats, deviations: Floats, *, medians: Floats, log_stds: Floats) -> tuple[Floats, float]:
    """Return the variance (squared amplitude) of each of `parts` `(n_parts, n, n)` of greatest posterior density, and the log evidence at them.

    `medians` and `log_stds` `(n_parts,)` are those of the log-normal priors. The last part is the measurement noise, of amplitude at most 1.
    """
    logs, free = np.log(medians), log_stds > 0
    middle = logs[free]

    def loss(free_logs: Floats) -> tuple[float, Floats]:
        logs[free] = free_logs
        minus_evidence, gradient = _minus_log_evidence(parts, deviations, np.exp(2 * logs))
        off = (free_logs - middle) / log_stds[free]
        return minus_evidence + float(off @ off) / 2, gradient[free] + off / log_stds[free]

    bounds = [(log - _LOG_BOUND, log + _LOG_BOUND) for log in middle]
    bounds[-1] = (bounds[-1][0], 0.0)
    logs[free] = minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=bounds).x
    squared = np.exp(2 * logs)
    return squared, -_minus_log_evidence(parts, deviations, squared)[0]


def _minus_log_evidence(parts: Floats, deviations: Floats, squared: Floats) -> tuple[float, Floats]:
    """Return ½ zᵀC⁻¹z + ½ log |C| and its gradient in the logarithms of the amplitudes (Rasmussen & Williams, equations 5.8 and 5.9)."""
    precision, log_determinant = _inverse(_total(parts, squared))
    weights = precision @ deviations
    slopes = -squared * ((np.outer(weights, weights) - precision) * parts).sum(axis=(1, 2))
    return float(deviations @ weights) / 2 + log_determinant / 2, slopes


def _total(parts: Floats, squared: Floats) -> Floats:
    return reduce(np.add, (variance * part for variance, part in zip(squared, parts, strict=True)))


def _inverse(covariance: Floats) -> tuple[Floats, float]:
    """Return C⁻¹ and log |C|."""
    n = len(covariance)
    if not n:
        return covariance, 0.0
    factor = cho_factor(covariance + _NUGGET * np.eye(n), lower=True)
    return cho_solve(factor, np.eye(n)), 2 * float(np.log(np.diag(factor[0])).sum())
