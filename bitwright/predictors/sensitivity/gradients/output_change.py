"""The squared change of a layer's output, each element weighed by the gradient there: ModelOpt's score.

    Σ_t Σ_c (g_tc · (ΔW x_t)_c)²        over tokens t and output channels c

Source: `auto_quantize` of NVIDIA ModelOpt 0.47, method `gradient`, which calls it a Taylor expansion with the Fisher information in place of the
Hessian. It keeps only the diagonal of that: of the square of a token's Σ_c g_tc (ΔW x_t)_c, whose mean is twice the divergence (gradient.py), the
terms with two channels are dropped, which is right where errors of channels are independent.

The gradient is that of the language-model loss on the text's own labels, as published. What differs: ModelOpt scores all experts of a layer at the
output of their block, here each is scored at its own; and it lowers a score that is above that of a coarser format to that one without a word, where
here prices stay as they are (`composed.repaired` mends them and says where).
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.gradients.losses import TextLabels
from bitwright.predictors.sensitivity.gradients.products import SquaredOutputChange
from bitwright.predictors.sensitivity.gradients.sweep import Sweep, measure_products
from bitwright.predictors.sensitivity.subject import Subject


def output_change_table(subject: Subject) -> NDArray[np.float64]:
    """Σ (g ⊙ ΔW x)² for each token `(n_units, n_formats)`, in nats² per token; 0 where a pair is not offered.

    One forward and one backward pass.
    """
    return measure_products(subject, Sweep(TextLabels(), SquaredOutputChange())).per_token()
