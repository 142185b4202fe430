"""Two readings of one sweep's gradients, joined: the geometric mean of the Fisher information and of its part within tokens and channels.

    gradient          ½ E (Σ_t Σ_c g_tc (ΔW x_t)_c)²         all of the divergence to second order, and noisy: one square for each sequence
    output change     ½ E Σ_t Σ_c (g_tc (ΔW x_t)_c)²         its diagonal: steady, one square for each token and channel, and blind to what adds up

with labels drawn from the model's own predictions (see `gradient`, `output_change`). Where both agree so does their mean; where the noise of the one
or the blindness of the other takes a price too far, half of it (in logarithms) is taken back. What that gains is in docs/methods.md. It reads no more
tokens than one of them, but multiplies the inputs of every layer with every change of its weights, which takes time for a long menu.
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
    """The products of both readings.

    Raises:
        ModelError: a product is not finite.
    """
    whole, diagonal = measure_together(subject, Sweep(SampledLabels()), (InnerProduct(), SquaredOutputChange()))
    return whole, diagonal


def joint_table(subject: Subject, error: Table) -> Table:
    """`joined` of them.

    Raises:
        ModelError: a product is not finite.
    """
    return joined(*joint_products(subject), error)


def joined(whole: Products, diagonal: Products, error: Table) -> Table:
    """The geometric mean `(n_units, n_formats)`, in nats per token: the diagonal counts on the scale of the whole. `error` `(n_units, n_formats)` is
    what the whole is shrunk towards, see `shrunk_table`.
    """
    return geometric_mean(shrunk_table(whole, error), diagonal.per_token())


def geometric_mean(table: Table, other: Table) -> Table:
    """√(T · c · O) with c so that both have the same geometric mean over the pairs that cost something in both; elsewhere `table`."""
    both = (table > 0) & (other > 0)
    if not both.any():
        return table
    ratio = np.exp(np.mean(np.log(table[both]) - np.log(other[both])))
    return np.where(both, np.sqrt(table * ratio * np.where(both, other, 1.0)), table)
