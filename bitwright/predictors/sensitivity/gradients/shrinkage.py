"""Lend each noisy price of a unit the strength of its other prices.

A gradient price is a mean over few sequences, so its relative variance is about 2/n. Within a unit, though, all formats share the same curvature:
their prices are nearly proportional to their importance-weighted errors, which have no sampling noise. So

    log price(u, f) = log error(u, f) + a(u) + e(u, f)

with a(u) the unit's own sensitivity, and the deviation e is kept only as far as its variance exceeds what the sampling explains: the positive-part
James–Stein rule (Efron & Morris, 1973), with the noise estimated from the spread over sequences. What it gains is in docs/predictors.md.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from bitwright.predictors.sensitivity.gradients.sweep import Products


def shrunk_table(products: Products, error: NDArray[np.float64]) -> NDArray[np.float64]:
    """The gradient table `(n_units, n_formats)` in nats per token, drawn towards `error` `(n_units, n_formats)`, in any units.

    Pairs whose price or error is zero, and all pairs when there are fewer than two sequences, stay as they are.
    """
    table = gradient_table(products)
    usable = (table > 0) & (error > 0)
    if len(products.values) < 2 or not usable.any():
        return table
    logs = np.log(np.where(usable, table, 1.0)) - np.log(np.where(usable, error, 1.0))
    n_usable = usable.sum(axis=1, keepdims=True)
    own = (logs * usable).sum(axis=1, keepdims=True) / np.maximum(n_usable, 1)  # a(u)
    deviation = np.where(usable, logs - own, 0.0)
    kept = _kept(deviation, products, usable)
    return np.where(usable, error * np.exp(own + kept * deviation), table)


def _kept(deviation: NDArray[np.float64], products: Products, usable: NDArray[np.bool_]) -> float:
    """The share of the deviations that is not explained by the noise of the sampling, 0 to 1."""
    squares = products.values**2
    relative = squares.var(axis=0, ddof=1) / np.where(usable, squares.mean(axis=0) ** 2, 1.0) / len(squares)
    noise = float(relative[usable].mean())
    n_free = int(usable.sum() - usable.any(axis=1).sum())
    total = float((deviation**2).sum()) / max(n_free, 1)
    return max(total - noise, 0.0) / total if total > 0 else 0.0
