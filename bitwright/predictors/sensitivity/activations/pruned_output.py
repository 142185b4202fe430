"""Change of a layer's outputs when its smallest weights are set to zero: Edge-LLM's sensitivity to pruning.

    score(l) = mean over the layer's matrices and over the ratios r of  E‖(W − W_r) x‖² / n_rows

with W_r the matrix without the share r of its weights, the smallest (Yu et al., "Edge-LLM", DAC 2024, section on layerwise unified compression, with
the ratios of its code): the mean squared error of each matrix's output on the inputs of the original model. A look-up's output is its row.

What differs: the paper prunes with SparseGPT, which changes the weights that stay; here they stay as they are.

Cost: one forward over the tokens (more where second moments take more than 2 GiB, see input_moments.py), and n_rows · n_columns² operations for each
matrix and ratio.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Floats
from bitwright.predictors.sensitivity.activations.input_moments import Cost, Moments, quadratic_weights
from bitwright.predictors.sensitivity.activations.layer_output import squared_norm
from bitwright.predictors.sensitivity.activations.sparsity_drop import without_smallest
from bitwright.predictors.sensitivity.subject import Subject

RATIOS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def pruned_output_scores(subject: Subject) -> NDArray[np.float64]:
    """Mean squared error of the outputs of each unit's matrices `(n_units,)`, not below 0."""
    found = quadratic_weights(subject, "pruned output", _error)
    n_matrices = np.array([len(unit.tensors) for unit in subject.space.units])
    scores: NDArray[np.float64] = found.sum(axis=1) / n_matrices
    return scores


def _error(moments: Moments) -> Cost:
    """Mean squared error of a matrix's output, over all ratios."""
    power = squared_norm(moments)

    def cost(matrix: Floats) -> tuple[float, float]:
        costs = np.array([power(matrix - without_smallest(matrix, ratio)) for ratio in RATIOS]).mean(axis=0) / len(matrix)
        return float(costs[0]), float(costs[1])

    return cost
