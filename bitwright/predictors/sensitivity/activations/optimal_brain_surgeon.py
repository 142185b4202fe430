"""Optimal Brain Surgeon loss: error of a weight after optimal compensation by the weights that follow it in its row.

    ½ Σ_rj Δw_rj² / [H_j⁻¹]_jj          H = 2 E x xᵀ + λ,   H_j = H without the rows and columns of the channels before j

Hassibi & Stork (NeurIPS 1992); for layers Frantar & Alistarh, "Optimal Brain Compression" (NeurIPS 2022), and GPTQ (Frantar et al., ICLR 2023), eq.
2. λ is 0.01 of the mean diagonal, as in GPTQ's code. GPTQ, QVLA and SliM-LLM divide by the square of the diagonal of the Cholesky factor of H⁻¹,
often written diag(H⁻¹)²: that square is [H_j⁻¹]_jj. Here it is computed without an inverse: 1/[H_j⁻¹]_jj is the squared diagonal of the factor R of H
= R Rᵀ with R upper triangular. Half of it is the residual variance of channel j given the channels after it, so for uncorrelated inputs the loss is
the layer-output error but for λ.

Δw is the error of the codec, e.g. of rounding to nearest: no weight is actually moved to compensate for another, so the loss is the error that would
remain if the codec compensated. A group without tokens costs nothing. A look-up has one input at a time and no compensation: its diagonal holds the
token frequencies, without damping.

Cost: one forward pass over the tokens (more where second moments take more than 2 GiB, see input_moments.py), and a Cholesky factorization of each
second-moment matrix.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import Floats
from bitwright.predictors.sensitivity.activations.input_moments import Cost, Moments, quadratic_errors, row_powers
from bitwright.predictors.sensitivity.subject import Subject

DAMPING = 0.01  # of the mean diagonal


def obs_table(subject: Subject) -> NDArray[np.float64]:
    """Return the loss of each unit and format per token `(n_units, n_formats)`, in the units of the layer-output error; NaN where a pair is not
    offered.
    """
    return quadratic_errors(subject, "surgeon", _loss).absolute()


def residual_variance(inputs: torch.Tensor) -> NDArray[np.float64]:
    """Return ½ / [H_j⁻¹]_jj of every channel `(n_columns,)`, for second moments `inputs` `(n_columns, n_columns)`."""
    moments = inputs.double()
    damping = DAMPING * moments.diagonal().mean()
    if damping == 0:
        return np.zeros(len(moments))
    damped = moments + damping * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
    factor = torch.linalg.cholesky(damped.flip(0, 1)).flip(0, 1)  # upper triangular, damped = factor factorᵀ
    variance: NDArray[np.float64] = factor.diagonal().square().cpu().numpy()
    return variance


def _loss(moments: Moments) -> Cost:
    channels = [residual_variance(inputs) for inputs in moments.inputs]  # one (n_columns,) for each group

    def cost(change: Floats) -> tuple[float, float]:
        groups = np.split(change, max(len(channels), 1))
        multiplied = sum(float(np.einsum("rc,rc->c", group, group) @ variance) for group, variance in zip(groups, channels, strict=False))
        return multiplied, float(moments.look_ups @ row_powers(change))

    return cost
