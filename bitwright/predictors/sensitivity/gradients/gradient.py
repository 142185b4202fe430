"""Second-order prices by the Fisher information: the expected divergence of every unit in every format, from one sweep of forward and backward
passes.

With labels drawn from the model's own output distribution, the expected outer product of the gradient g of the log-likelihood is the Fisher
information F, and F is the Hessian of the divergence at the original weights (Amari, 1998; Martens, 2020, eq. 5). So for any change ΔW

    KL(W ‖ W + ΔW) ≈ ½ ΔWᵀ F ΔW = ½ E⟨g, ΔW⟩²

and the gradient of one sequence prices every format of every unit at once, with the actual ΔW of the codec. Labels are drawn independently at each
position, so the gradients of a sequence's tokens are uncorrelated and the expected square of their sum has no cross terms.

The products ⟨g, ΔW⟩ are stored for each sequence: products of two units tell whether their errors add up.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.gradients.losses import SampledLabels
from bitwright.predictors.sensitivity.gradients.sweep import Products, Sweep, measure_products
from bitwright.predictors.sensitivity.subject import Subject


def gradient_products(subject: Subject) -> Products:
    """Measure ⟨g, ΔW⟩ at the original weights, labels drawn from the model; see `measure_products`.

    Raises:
        ModelError: a product is not finite.
    """
    return measure_products(subject, Sweep(SampledLabels()))


def gradient_table(products: Products) -> NDArray[np.float64]:
    """Return ½ E⟨g, ΔW⟩² per token `(n_units, n_formats)`, in nats per token."""
    expected: NDArray[np.float64] = products.squares().mean(axis=0) / (2 * products.n_tokens)
    return expected
