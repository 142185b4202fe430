"""The divergence around a choice, to second order: what it would change by if each unit went from its format to another.

With Δ the change of all weights from the choice and D the divergence,

    D(c + Δ) ≈ D(c) + ⟨∇D(c), Δ⟩ + ½ ΔᵀFΔ

The slopes come from one sweep with the gradient of the divergence at the choice itself, which is exact for the tokens that are read: no labels are
drawn. They hold what the errors of all other units do to each one. The curvature F is taken from the sweep at the original (see `gradient`): the
products ⟨g, ΔW⟩ of two formats differ by the product of going from one to the other, so it costs nothing more. Of F the part within units is used;
between units there are too few sequences for too many pairs (docs/measurements.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import Reference
from bitwright.predictors.sensitivity.gradients.losses import FromOriginal
from bitwright.predictors.sensitivity.gradients.sweep import Products, Sweep, measure_products, point
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Choice


@dataclass(frozen=True, eq=False)
class Expansion:
    """Around any choice of the subject's space. `at_original` are the products of a sweep with drawn labels at the original weights, `reference` the
    original's predictions on the subject's tokens.
    """

    subject: Subject
    at_original: Products
    reference: Reference

    def __call__(self, choice: Choice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Slopes and curvatures `(n_units, n_formats)` in nats per token around `choice` `(n_units,)`, zero where a unit stands and where nothing is
        offered. Cost: one forward and one backward pass over the tokens, kept in the subject's store.
        """
        offered, space = self.subject.space.offered, self.subject.space
        slopes = measure_products(self.subject, Sweep(FromOriginal(lambda _: self.reference), at=point(space, choice))).per_token()
        values = self.at_original.values
        change = values - values[:, np.arange(len(choice)), choice][..., None]  # (n_sequences, n_units, n_formats)
        curvatures = (change**2).mean(axis=0) / (2 * self.at_original.n_tokens)
        return np.where(offered, slopes, 0.0), np.where(offered, curvatures, 0.0)
