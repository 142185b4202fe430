"""Sensitivity from the weights alone: the relative squared error of a format, plain or weighted by the importance of the input channels.

Both are in units of their own, not in nats; `scale` turns them into nats with what has been measured. They say how badly a matrix is stored, not
how much the model cares: on most models they rank units poorly (see docs/predictors.md), and are kept because they need no gradients.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Distortion


def weight_error_table(distortion: Distortion) -> NDArray[np.float64]:
    """Σ ΔW² / Σ W² of each unit and format `(n_units, n_formats)`, NaN where a pair was not tried."""
    return distortion.plain


def importance_error_table(distortion: Distortion) -> NDArray[np.float64]:
    """Σ d ΔW² / Σ d W² with d the mean squared activation of each input channel `(n_units, n_formats)`, NaN where a pair was not tried."""
    return distortion.weighted
