"""Squared change of a layer's output, weighted elementwise by the gradient: ModelOpt's score.

    Σ_t Σ_c (g_tc · (ΔW x_t)_c)²        over tokens t and output channels c

Source: `auto_quantize` of NVIDIA ModelOpt 0.47, method `gradient`, described there as a Taylor expansion with the Fisher information in place of the
Hessian. Only its diagonal is used: in the square of a token's Σ_c g_tc (ΔW x_t)_c, whose mean is twice the divergence (gradient.py), the cross terms
of two channels are dropped, which is exact if the errors of channels are independent.

The gradient is that of the language-model loss on the text's own labels, as published. What differs: ModelOpt scores all experts of a layer at the
output of their block, here each is scored at its own output; and ModelOpt silently lowers a score above that of a coarser format, while here prices
stay as measured (`composed.repaired` corrects them and lists the corrections).
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.gradients.losses import TextLabels
from bitwright.predictors.sensitivity.gradients.products import SquaredOutputChange
from bitwright.predictors.sensitivity.gradients.sweep import Sweep, measure_products
from bitwright.predictors.sensitivity.subject import Subject


def output_change_table(subject: Subject) -> NDArray[np.float64]:
    """Return Σ (g ⊙ ΔW x)² per token `(n_units, n_formats)`, in nats² per token; 0 where a pair is not offered.

    One forward and one backward pass.
    """
    return measure_products(subject, Sweep(TextLabels(), SquaredOutputChange())).per_token()
