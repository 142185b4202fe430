"""PMQ's price of an expert: selection frequency, routing weight and block-output error.

    price(u, f) = φ^α · w^β · ε^γ       MC-MoE (Huang et al., "Mixture Compressor", ICLR 2025, eq. 4)

φ is the expert's share of all selections in its layer, w its share of the router probability of the selected experts before renormalisation, and
ε = ‖F(x) − F(x; u in f)‖ the error at the output of the block, all else as in the original. The paper has α = β = 1 and γ = 2; its released code
computes φ · w^1.5 · ε, which its published allocations follow.

What differs: ε is over all tokens at once, not summed over batches, and relative to the norm of the block's output, so that blocks are comparable;
within a block this is a common factor. A unit that is not an expert has φ = w = 1. An expert that is never selected costs nothing, as published.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import Routing, cached_routing
from bitwright.predictors.sensitivity.activations.block_output import block_output_errors
from bitwright.predictors.sensitivity.composed import power_product
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Space


@dataclass(frozen=True)
class ExpertProduct:
    """Price φ^frequency · w^weight · ε^error of an expert: the exponents of its three factors."""

    frequency: float
    weight: float
    error: float

    def __call__(self, subject: Subject) -> NDArray[np.float64]:
        """Return the table `(n_units, n_formats)`, dimensionless."""
        routing = cached_routing(subject.model, subject.tokens, store=subject.store, progress=subject.progress)
        chosen, weight = (_of_units(subject.space, routing, values) for values in (routing.n_chosen, routing.probability))
        errors = np.sqrt(block_output_errors(subject).relative())
        return power_product((chosen, weight, errors), (self.frequency, self.weight, self.error))


def router_scores(subject: Subject) -> NDArray[np.float64]:
    """Return the router probability of each expert, summed over the tokens routed to it, as a share of its layer `(n_units,)`; 1 for other units.

    The score by which Collaborative Compression prunes experts.
    """
    routing = cached_routing(subject.model, subject.tokens, store=subject.store, progress=subject.progress)
    return _of_units(subject.space, routing, routing.probability)[:, 0]


PUBLISHED = ExpertProduct(1.0, 1.0, 2.0)
RELEASED = ExpertProduct(1.0, 1.5, 1.0)


def _of_units(space: Space, routing: Routing, values: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of `values` of each unit's expert in its layer `(n_units, 1)`, 1 for a unit that is not an expert."""
    shares = routing.shares(values)
    return np.array([[shares[routing.row_of(unit.layer, unit.expert)] if unit.expert >= 0 else 1.0] for unit in space.units])
