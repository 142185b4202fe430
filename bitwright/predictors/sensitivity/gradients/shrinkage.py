"""Shrinkage of noisy gradient prices towards a common ratio to the weight error within each unit.

A gradient price is a mean over few sequences, so its relative variance is about 2/n. Within a unit, however, all formats share the same curvature:
their prices are nearly proportional to their importance-weighted errors, which have no sampling noise. So

    log price(u, f) = log error(u, f) + a(u) + e(u, f)

with a(u) the unit's sensitivity. The deviations e are multiplied by the share of their variance that sampling noise does not explain: the
positive-part James–Stein estimator (Efron & Morris, 1973), the noise estimated from the variance over sequences. The gain is in docs/predictors.md.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from bitwright.predictors.sensitivity.gradients.sweep import Products


def shrunk_table(products: Products, error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the gradient table `(n_units, n_formats)` in nats per token, shrunk towards `error` `(n_units, n_formats)`, in any units.

    Pairs whose price or error is zero, and all pairs if there are fewer than two sequences, stay unchanged.
    """
    table = gradient_table(products)
    usable = (table > 0) & (error > 0)
    if len(products.values) < 2 or not usable.any():
        return table
    logs = np.log(np.where(usable, table, 1.0)) - np.log(np.where(usable, error, 1.0))
    n_usable = usable.sum(axis=1, keepdims=True)
    own = (logs * usable).sum(axis=1, keepdims=True) / np.maximum(n_usable, 1)  # a(u)
    deviation = np.where(usable, logs - own, 0.0)
    retained = _retained(deviation, products, usable)
    return np.where(usable, error * np.exp(own + retained * deviation), table)


def _retained(deviation: NDArray[np.float64], products: Products, usable: NDArray[np.bool_]) -> float:
    """Return the share of the deviations' variance that sampling noise does not explain, 0 to 1."""
    squares = products.squares()
    relative = squares.var(axis=0, ddof=1) / np.where(usable, squares.mean(axis=0) ** 2, 1.0) / len(squares)
    noise = float(relative[usable].mean())
    n_free = int(usable.sum() - usable.any(axis=1).sum())
    total = float((deviation**2).sum()) / max(n_free, 1)
    return max(total - noise, 0.0) / total if total > 0 else 0.0
