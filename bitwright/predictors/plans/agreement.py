"""Rank correlation of tables' sums with measured plans, and of tables among themselves.

Spearman's and Kendall's coefficients, with percentile bootstrap intervals over plans (Efron & Tibshirani, 1993, chapter 13). The coefficient among
plans of equal size is the one to compare tables by, since there "larger is better" helps none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import numpy as np
import scipy
from numpy.typing import NDArray

from bitwright.spaces import Choices

_RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """Rank correlations of predicted with measured values of `n` plans; `low` and `high` are the 95 % interval of Spearman's.

    All are NaN where undefined: for fewer than three plans, or where all predictions or all measurements are equal.
    """

    n: int
    spearman: float
    low: float
    high: float
    kendall: float


def rank_agreement(predicted: NDArray[np.float64], measured: NDArray[np.float64], *, rng: np.random.Generator) -> Agreement:
    """Return the rank correlations of `predicted` and `measured` values of plans, both `(n_plans,)`; `rng` draws the bootstrap resamples."""
    n = len(measured)
    if n < 3 or np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return Agreement(n, spearman=nan, low=nan, high=nan, kendall=nan)
    draws = rng.integers(n, size=(_RESAMPLES, n))
    resampled = _pearson(scipy.stats.rankdata(predicted[draws], axis=1), scipy.stats.rankdata(measured[draws], axis=1))
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    spearman, kendall = scipy.stats.spearmanr(predicted, measured)[0], scipy.stats.kendalltau(predicted, measured)[0]
    return Agreement(n, float(spearman), float(low), float(high), float(kendall))


def sums(table: NDArray[np.float64], choices: Choices) -> NDArray[np.float64]:
    """Return the sums of a table `(n_units, n_formats)` over choices `(n, n_units)`: `(n,)`, NaN where a pair has no price."""
    total: NDArray[np.float64] = table[np.arange(table.shape[0]), choices].sum(axis=1)
    return total


def table_agreement(tables: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return Spearman's coefficient of every two tables over the pairs priced by both: `(n_tables, n_tables)`, in the order of `tables`; NaN where a
    table has one price only.
    """
    found = np.eye(len(tables))
    listed = list(tables.values())
    for i, first in enumerate(listed):
        for j, second in enumerate(listed[:i]):
            both = ~np.isnan(first) & ~np.isnan(second)
            found[i, j] = found[j, i] = float(_pearson(scipy.stats.rankdata(first[both]), scipy.stats.rankdata(second[both])))
    return found


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Pearson's correlation along the last axis; NaN where one of the two is constant."""
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    scale = np.asarray(np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1)))
    found: NDArray[np.float64] = np.divide((x * y).sum(axis=-1), scale, out=np.full(scale.shape, np.nan), where=scale > 0)
    return found
