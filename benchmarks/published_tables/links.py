"""Predictors of a model's divergence in every type, from its sum of single divergences, one or two measured types, and the curves of other models.

    mean curve   log of the divergence = mean over the other models, moved to one measured type, and stretched to a second
    coverage     c · (1 - exp(-s · Σ)), the link of NVIDIA's ModelOpt: Σ is the sum of the single divergences, carried to each type by the mean
                 curve; one measured type gives c with s = 1, a second one s
    kriging      log divergences of all models and types as one Gaussian process about the mean curve, whose covariance is that of the types, found
                 from the other models, times the kinship of the models; conditioned on the other models and on the measured types

Types and models are indices here; curves are logarithms of nats/token, `(n_types,)`, NaN where nothing was measured.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]  # (n_types,): logarithms of nats/token

_NOISE = 0.1  # standard deviation of a measured logarithm beside what models have in common
_STEEPEST = 1e6  # of s · Σ
_HALVINGS = 80


@dataclass(frozen=True, eq=False)
class Question:
    """Model to predict.

    `curves` `(n, n_types)` of the other models, their kinship `among` each other `(n, n)` and `to` the model `(n,)`, the measured types `points`
    `(k,)` and their logarithms `at_points` `(k,)`, the `sum_of_singles` in nats/token, and the index of the type that these have.
    """

    curves: NDArray[np.float64]
    among: NDArray[np.float64]
    to: NDArray[np.float64]
    points: NDArray[np.int64]
    at_points: NDArray[np.float64]
    sum_of_singles: float
    singles_type: int


@dataclass(frozen=True, eq=False)
class Answer:
    """Predicted curve, and the standard deviation of its logarithm `(n_types,)`, NaN where a predictor gives none."""

    curve: Curve
    deviation: Curve


Predictor = Callable[[Question], Answer]


def mean_curve(question: Question) -> Answer:
    """Move the mean curve of the other models to one measured type, or stretch it through two."""
    mean = np.nanmean(question.curves, axis=0)
    if len(question.points) == 1:
        return _without_deviation(mean + question.at_points[0] - mean[question.points[0]])
    slope, level = np.polyfit(mean[question.points], question.at_points, 1)
    return _without_deviation(level + slope * mean)


def sum_alone(question: Question) -> Answer:
    """Return the sum of single divergences, carried to each type by the mean curve; nothing is measured."""
    return _without_deviation(_carried_sums(question))


def coverage(question: Question) -> Answer:
    """Return the coverage link through one measured type, or through two as far as its steepness can reach."""
    sums = np.exp(_carried_sums(question))
    steepness = 1.0 if len(question.points) == 1 else _steepness(sums[question.points], question.at_points)
    covered = np.log(-np.expm1(-steepness * sums))
    return _without_deviation(covered + float(np.mean(question.at_points - covered[question.points])))


def _carried_sums(question: Question) -> Curve:
    mean = np.nanmean(question.curves, axis=0)
    return np.log(question.sum_of_singles) + mean - mean[question.singles_type]


def _steepness(sums: NDArray[np.float64], logs: NDArray[np.float64]) -> float:
    """Return s for which two sums differ by the measured ratio, by bisection: 0 gives the ratio of the sums, a large s gives 1."""
    low, high = np.argsort(sums)
    wanted = logs[high] - logs[low]
    least, most = 1e-9 / sums[high], _STEEPEST / sums[low]
    for _ in range(_HALVINGS):
        middle = np.sqrt(least * most)
        found = np.log(np.expm1(-middle * sums[high]) / np.expm1(-middle * sums[low]))
        least, most = (middle, most) if found > wanted else (least, middle)
    return float(least)


def kriging(question: Question) -> Answer:
    """Return mean and deviation of the Gaussian process; every curve is first moved by its mean over the measured types."""
    curves = _filled(question.curves)
    level = float(question.at_points.mean())
    moved = curves - curves[:, question.points].mean(axis=1, keepdims=True)
    mean = moved.mean(axis=0)
    excess = moved - mean  # (n, n_types)
    covariance = excess.T @ excess / len(excess)
    # K = kinship ⊗ covariance is diagonal in the eigenvectors of its factors
    of_models, models = np.linalg.eigh(question.among)
    of_types, types = np.linalg.eigh(covariance)
    of_types = np.maximum(of_types, 0.0)
    gain = (models.T @ question.to)[:, None] * of_types / (np.outer(of_models, of_types) + _NOISE**2)  # (n, n_types)
    prior = types @ (gain * (models.T @ excess @ types)).sum(axis=0)
    left = of_types - (gain * (models.T @ question.to)[:, None] * of_types).sum(axis=0)
    spread = (types * left) @ types.T  # (n_types, n_types): covariance given the other models
    points = question.points
    weights = np.linalg.solve(spread[np.ix_(points, points)] + _NOISE**2 * np.eye(len(points)), spread[points]).T  # (n_types, k)
    found = mean + prior + weights @ (question.at_points - level - (mean + prior)[points])
    variance = np.diag(spread) - np.einsum("tk,kt->t", weights, spread[points])
    return Answer(level + found, np.sqrt(np.maximum(variance, 0.0) + _NOISE**2))


def _filled(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill what was not measured by the mean curve, moved to the rest of the model's."""
    mean = np.nanmean(curves, axis=0)
    level = np.nanmean(curves - mean, axis=1, keepdims=True)
    return np.where(np.isnan(curves), mean + level, curves)


def _without_deviation(curve: Curve) -> Answer:
    return Answer(curve, np.full(len(curve), np.nan))
