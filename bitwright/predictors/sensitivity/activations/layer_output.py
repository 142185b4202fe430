"""Layer-output error: squared error E‖ΔW x‖² of a layer's output with its weights in one format, over the tokens of the text.

The objective of layer-wise quantization (Nagel et al., AdaRound, ICML 2020; Frantar et al., GPTQ, ICLR 2023, eq. 1) at the format's actual ΔW, with
all correlations of the inputs: the importance-weighted error is the same with M = E x xᵀ reduced to its diagonal. It ignores how the rest of the
model propagates the error. Divided by the power of the output it is a noise-to-signal ratio; neither is in nats.

An expert counts over the tokens routed to it, without the router's weight of its output. The output of a look-up is the row itself.

Cost: one forward pass over the tokens (more where second moments take more than 2 GiB, see input_moments.py), and n_rows · n_columns² operations a
pair.
"""

import numpy as np
import torch
from torch import Tensor as Torch

from bitwright.compress import Floats
from bitwright.predictors.sensitivity.activations.input_moments import Cost, Moments, OutputErrors, quadratic_errors, row_powers
from bitwright.predictors.sensitivity.subject import Subject


def layer_output_errors(subject: Subject) -> OutputErrors:
    """E‖ΔW x‖² of every unit and format, and E‖W x‖² of every unit; of a unit with several tensors, their sum."""
    return quadratic_errors(subject, "layer output", squared_norm)


def squared_norm(moments: Moments) -> Cost:
    """E‖V x‖² of a matrix V."""

    def cost(matrix: Floats) -> tuple[float, float]:
        groups = np.split(matrix, max(len(moments.inputs), 1))
        multiplied = sum(_quadratic(group, products) for group, products in zip(groups, moments.inputs, strict=False))
        return max(multiplied, 0.0), float(moments.look_ups @ row_powers(matrix))

    return cost


def _quadratic(matrix: Floats, products: Torch) -> float:
    """Return tr(V M Vᵀ)."""
    rows = torch.from_numpy(matrix).to(products)
    return float(((rows @ products) * rows).sum(dtype=torch.float64))
