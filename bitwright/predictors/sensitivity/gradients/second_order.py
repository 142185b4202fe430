"""Second-order Taylor expansion of the divergence around a choice, for every change of a single unit's format.

With Δ the change of all weights from the choice and D the divergence,

    D(c + Δ) ≈ D(c) + ⟨∇D(c), Δ⟩ + ½ ΔᵀFΔ

The slopes come from one sweep with the gradient of the divergence at the choice itself, which is exact for the tokens read, since no labels are
drawn; they include the interaction with the errors of all other units. The curvature F is taken from the sweep at the original (see `gradient`): the
products ⟨g, ΔW⟩ of two formats differ by the product of the change from one to the other, so it costs no further pass. Only the blocks of F within
units are used; between units there are too many pairs for the number of sequences (docs/measurements.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import PendingReference, Reference
from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from bitwright.predictors.sensitivity.gradients.losses import FromOriginal
from bitwright.predictors.sensitivity.gradients.sweep import Products, Sweep, measure_products, operating_point
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Choice


@dataclass(frozen=True, eq=False)
class Expansion:
    """Expansion around any choice of the subject's space. `at_original` are the products of a sweep with sampled labels at the original weights,
    `reference` the original's predictions on the subject's tokens.
    """

    subject: Subject
    at_original: Products
    reference: Reference | PendingReference

    def __call__(self, choice: Choice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return slopes and curvatures, both `(n_units, n_formats)` in nats per token, around `choice` `(n_units,)`; zero for the chosen formats and
        where a pair is not offered. Cost: one forward and one backward pass over the tokens, cached in the subject's store.
        """
        offered, space = self.subject.space.offered, self.subject.space
        loss = FromOriginal(lambda _: self.reference.computed())
        slopes = measure_products(self.subject, Sweep(loss, at=operating_point(space, choice))).per_token()
        curvatures = gradient_table(self.at_original.less(choice))
        return np.where(offered, slopes, 0.0), np.where(offered, curvatures, 0.0)
