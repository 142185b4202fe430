"""The price of an expert as PMQ has it: how often it is chosen, how much it counts then, and what a format does to its block.

    price(u, f) = φ^α · w^β · ε^γ       MC-MoE (Huang et al., "Mixture Compressor", ICLR 2025, eq. 4)

φ is the share of all choices in the layer that fall on the expert, w its share of the probability that the router gives the chosen, before that is
renormalised, and ε = ‖F(x) − F(x; u in f)‖ at the output of the block, all else as in the original. The paper has α = β = 1 and γ = 2; its released
code computes φ · w^1.5 · ε, which is what its published allocations follow.

Differs: ε is over all tokens at once, not summed over batches, and relative to the norm of the block's output, so that blocks can be compared; within
a block that is one factor for all. A unit that is no expert has φ = w = 1. An expert that is never chosen is free, as published.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives import Routing, kept_routing
from bitwright.predictors.sensitivity.activations.block_output import block_output_errors
from bitwright.predictors.sensitivity.composed import power_product
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import Space


@dataclass(frozen=True)
class ExpertProduct:
    """The exponents of the three factors: of the `frequency` φ, of the `weight` w, and of the `error` ε."""

    frequency: float
    weight: float
    error: float

    def __call__(self, subject: Subject) -> NDArray[np.float64]:
        """The table `(n_units, n_formats)`, in no unit."""
        routing = kept_routing(subject.model, subject.tokens, store=subject.store, progress=subject.progress)
        chosen, weight = (_of_units(subject.space, routing, values) for values in (routing.n_chosen, routing.probability))
        errors = np.sqrt(block_output_errors(subject).relative())
        return power_product((chosen, weight, errors), (self.frequency, self.weight, self.error))


def router_scores(subject: Subject) -> NDArray[np.float64]:
    """The router's probability of each expert, summed over the tokens that are sent to it, as a share of its layer `(n_units,)`; 1 for what is none.

    What Collaborative Compression prunes experts by.
    """
    routing = kept_routing(subject.model, subject.tokens, store=subject.store, progress=subject.progress)
    return _of_units(subject.space, routing, routing.probability)[:, 0]


PUBLISHED = ExpertProduct(1.0, 1.0, 2.0)
RELEASED = ExpertProduct(1.0, 1.5, 1.0)


def _of_units(space: Space, routing: Routing, values: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """The share in its layer of each unit's expert, 1 for what is none `(n_units, 1)`."""
    shares = routing.shares(values)
    return np.array([[shares[routing.row_of(unit.layer, unit.expert)] if unit.expert >= 0 else 1.0] for unit in space.units])
