"""Sensitivity from the weights alone: squared error of a format, relative or absolute, plain or weighted by the importance of the input channels.

None is in nats; `fit_scale` converts them with measured plans. They measure how well a matrix is approximated, not how much the model depends on it:
on most models they rank units poorly (see docs/predictors.md), but they need no gradients.

Cost: no pass; the importance-weighted error needs the importance matrix, one forward pass unless it is given.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Distortion, PackedTensors
from bitwright.spaces import Space, Tensor


def weight_error_table(distortion: Distortion) -> NDArray[np.float64]:
    """Return Σ ΔW² / Σ W² of each unit and format `(n_units, n_formats)`, NaN where a pair was not measured."""
    return distortion.plain


def absolute_error_table(distortion: Distortion, space: Space, *, levels: PackedTensors) -> NDArray[np.float64]:
    """Return Σ ΔW² of each unit and format `(n_units, n_formats)`, NaN where a pair was not measured."""
    powers = [sum(float(np.square(levels.source.read(tensor)).sum(dtype=np.float64)) for tensor in unit.tensors) for unit in space.units]
    absolute: NDArray[np.float64] = distortion.plain * np.array(powers)[:, None]
    return absolute


def importance_error_table(distortion: Distortion) -> NDArray[np.float64]:
    """Return Σ d ΔW² / Σ d W² `(n_units, n_formats)`, d the mean squared activation of each input channel; NaN where a pair was not measured."""
    return distortion.weighted


def weighted_error_table(distortion: Distortion, space: Space, *, levels: PackedTensors) -> NDArray[np.float64]:
    """Return Σ d ΔW² of each unit and format `(n_units, n_formats)`: of uncorrelated inputs, the squared error of a unit's output per token."""
    powers = [sum(_weighted_power(levels, tensor) for tensor in unit.tensors) for unit in space.units]
    weighted: NDArray[np.float64] = distortion.weighted * np.array(powers)[:, None]
    return weighted


def _weighted_power(levels: PackedTensors, tensor: Tensor) -> float:
    """Return Σ d W² of a tensor, Σ W² where the importance of its channels is not known."""
    channels, rows = levels.importance_of(tensor), levels.source.read(tensor)
    columns = np.square(rows, dtype=np.float64).reshape(max(len(channels), 1), -1, rows.shape[-1]).sum(axis=1)
    return float((columns * channels).sum() if len(channels) else columns.sum())
