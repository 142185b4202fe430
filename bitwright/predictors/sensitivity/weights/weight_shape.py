"""Importance scores from the distribution of a unit's weights, over all of its tensors together.

With z = (w − mean) / standard deviation:
    ZD              −share of weights with z > 1     Dumitru et al., "Layer-Wise Quantization" (2406.17415): a smaller share is more important
    kurtosis        E z⁴                             KurtBoost (2503.06518); 1.8 for a uniform distribution, 3 for a normal one
    outlier share   share of A > 5 · mean A          A = |w| · root of the channel's mean squared activation, the layer outlier distribution of
                                                     OWL (Yin et al., ICML 2024), with M = 5

The sources score whole layers, here each unit is scored, so a unit that ties a layer's tensors has the source's score. Where the importance of the
input channels is unknown, as for an embedding, A is |w|.

Cost: no pass. The outlier share needs the importance matrix, one forward pass unless it is given.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Floats, PackedTensors
from bitwright.spaces import Space, Unit

_WEIGHTS_AT_ONCE = 1 << 22
_OUTLIER = 5  # times the mean

Rows = Iterator[NDArray[np.float64]]


def zd_scores(space: Space, levels: PackedTensors) -> NDArray[np.float64]:
    """Return ZD of each unit `(n_units,)`, −1 to 0; 0 if all weights are equal."""

    def score(unit: Unit) -> float:
        mean, deviation = _normal(unit, levels)
        return -_mean(_weights(unit, levels), lambda rows: rows > mean + deviation) if deviation else 0.0

    return np.array([score(unit) for unit in space.units])


def kurtosis_scores(space: Space, levels: PackedTensors) -> NDArray[np.float64]:
    """Return the kurtosis of each unit `(n_units,)`, not below 1; 0 if all weights are equal."""

    def score(unit: Unit) -> float:
        mean, deviation = _normal(unit, levels)
        return _mean(_weights(unit, levels), lambda rows: ((rows - mean) / deviation) ** 4) if deviation else 0.0

    return np.array([score(unit) for unit in space.units])


def outlier_scores(space: Space, levels: PackedTensors) -> NDArray[np.float64]:
    """Return the outlier share of each unit `(n_units,)`, 0 to 1/5."""

    def score(unit: Unit) -> float:
        mean = _mean(_activated(unit, levels), lambda rows: rows)
        return _mean(_activated(unit, levels), lambda rows: rows > _OUTLIER * mean)

    return np.array([score(unit) for unit in space.units])


def _normal(unit: Unit, levels: PackedTensors) -> tuple[float, float]:
    """Return the mean and the standard deviation of a unit's weights."""
    mean = _mean(_weights(unit, levels), lambda rows: rows)
    return mean, float(np.sqrt(_mean(_weights(unit, levels), lambda rows: (rows - mean) ** 2)))


def _mean(rows: Rows, statistic: Callable[[NDArray[np.float64]], NDArray[np.generic]]) -> float:
    """Return the mean of `statistic` over all weights."""
    totals = np.array([(statistic(some).sum(), some.size) for some in rows], dtype=np.float64).sum(axis=0)
    return float(totals[0] / totals[1])


def _weights(unit: Unit, levels: PackedTensors) -> Rows:
    """Yield the weights of a unit, some rows `(n_rows, n_columns)` at a time."""
    for tensor in unit.tensors:
        yield from _some(levels.source.read(tensor))


def _activated(unit: Unit, levels: PackedTensors) -> Rows:
    """Yield |w| times the root mean square activation of its channel, some rows at a time."""
    for tensor in unit.tensors:
        weights, channels = levels.source.read(tensor), levels.importance_of(tensor)
        groups = np.split(weights, max(len(channels), 1))
        for g, group in enumerate(groups):
            scale = np.sqrt(channels[g], dtype=np.float64) if len(channels) else 1.0
            yield from (np.abs(rows) * scale for rows in _some(group))


def _some(weights: Floats) -> Rows:
    step = max(1, _WEIGHTS_AT_ONCE // weights.shape[1])
    for start in range(0, len(weights), step):
        yield weights[start : start + step].astype(np.float64)
