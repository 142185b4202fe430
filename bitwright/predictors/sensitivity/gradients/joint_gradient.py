"""Geometric mean of two estimates from one sweep: the Fisher information, and its diagonal over tokens and output channels.

    gradient          ½ E (Σ_t Σ_c g_tc (ΔW x_t)_c)²         unbiased to second order, but noisy: one square per sequence
    output change     ½ E Σ_t Σ_c (g_tc (ΔW x_t)_c)²         low noise: one square per token and channel, but without the cross terms

with labels drawn from the model's own predictions (see `gradient`, `output_change`). The geometric mean halves, in logarithms, the error that the
noise of the first or the missing cross terms of the second cause. The gain is in docs/methods.md. It needs no more passes than either, but multiplies
the inputs of every layer with every weight change, which takes time for many formats.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.gradients.losses import SampledLabels
from bitwright.predictors.sensitivity.gradients.products import InnerProduct, SquaredOutputChange
from bitwright.predictors.sensitivity.gradients.shrinkage import shrunk_table
from bitwright.predictors.sensitivity.gradients.sweep import Products, Sweep, measure_together
from bitwright.predictors.sensitivity.subject import Subject

Table = NDArray[np.float64]


def joint_products(subject: Subject) -> tuple[Products, Products]:
    """Measure the products of both estimates in one sweep.

    Raises:
        ModelError: a product is not finite.
    """
    whole, diagonal = measure_together(subject, Sweep(SampledLabels()), (InnerProduct(), SquaredOutputChange()))
    return whole, diagonal


def joint_table(subject: Subject, error: Table) -> Table:
    """Return the joint table `(n_units, n_formats)` in nats per token, see `joined`.

    Raises:
        ModelError: a product is not finite.
    """
    return joined(*joint_products(subject), error)


def joined(whole: Products, diagonal: Products, error: Table) -> Table:
    """Return the geometric mean `(n_units, n_formats)` in nats per token, the diagonal rescaled to the whole. The whole is shrunk towards `error`
    `(n_units, n_formats)`, see `shrunk_table`.
    """
    return geometric_mean(shrunk_table(whole, error), diagonal.per_token())


def geometric_mean(table: Table, other: Table) -> Table:
    """Return √(T · c · O), with c such that both have the same geometric mean over the pairs above zero in both; other pairs as in `table`."""
    both = (table > 0) & (other > 0)
    if not both.any():
        return table
    ratio = np.exp(np.mean(np.log(table[both]) - np.log(other[both])))
    return np.where(both, np.sqrt(table * ratio * np.where(both, other, 1.0)), table)
