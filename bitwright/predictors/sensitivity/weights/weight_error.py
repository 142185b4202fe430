"""Sensitivity from the weights alone: the squared error of a format, relative, absolute, or weighted by the importance of the input channels.

All are in units of their own, not in nats; `scale` turns them into nats with what has been measured. They say how badly a matrix is stored, not
how much the model cares: on most models they rank units poorly (see docs/predictors.md), and are kept because they need no gradients.

Cost: no pass; the importance-weighted error needs the importance matrix, one forward, unless it is there.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Distortion, Levels
from bitwright.spaces import Space


def weight_error_table(distortion: Distortion) -> NDArray[np.float64]:
    """Σ ΔW² / Σ W² of each unit and format `(n_units, n_formats)`, NaN where a pair was not tried."""
    return distortion.plain


def absolute_error_table(distortion: Distortion, space: Space, *, levels: Levels) -> NDArray[np.float64]:
    """Σ ΔW² of each unit and format `(n_units, n_formats)`, NaN where a pair was not tried."""
    powers = [sum(float(np.square(levels.source.read(tensor)).sum(dtype=np.float64)) for tensor in unit.tensors) for unit in space.units]
    absolute: NDArray[np.float64] = distortion.plain * np.array(powers)[:, None]
    return absolute


def importance_error_table(distortion: Distortion) -> NDArray[np.float64]:
    """Σ d ΔW² / Σ d W² with d the mean squared activation of each input channel `(n_units, n_formats)`, NaN where a pair was not tried."""
    return distortion.weighted
