"""First-order prices: the gradient of a loss times the weight change of a format.

    |⟨g, ΔW⟩|         at the original, g of the language-model loss    LLM-MQ (Li et al., 2023)
    Σ |g ⊙ ΔW|        at everything in the format, likewise            AutoRound's delta loss (`auto_scheme`, auto-round 0.16)
    ⟨g, ΔW⟩, signed   at everything in the smallest format, g of KL    mlx-lm's dynamic quantization (`dynamic_quant`, mlx-lm 0.32)

At the original weights of a trained model the expected gradient is close to zero, so LLM-MQ's price is mostly sampling noise; at a quantized
operating point it is not. What differs from the published programs: AutoRound also adds Σ|g ⊙ Δx| for the quantized inputs of a layer, which is zero
for weight-only formats, and takes the absolute value once per batch, here once per sequence; mlx-lm has two formats and divides by the number of
weights, for a threshold instead of a knapsack.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.gradients.losses import FromOriginal, TextLabels
from bitwright.predictors.sensitivity.gradients.products import AbsoluteProduct
from bitwright.predictors.sensitivity.gradients.sweep import Sweep, measure_products, operating_point
from bitwright.predictors.sensitivity.subject import Subject


def first_order_table(subject: Subject) -> NDArray[np.float64]:
    """Return |⟨g, ΔW⟩| `(n_units, n_formats)` in nats per token, g the mean gradient of the language-model loss at the original; 0 where a pair is
    not offered.

    One forward and one backward pass.
    """
    return np.abs(measure_products(subject, Sweep(TextLabels())).per_token())


def delta_loss_table(subject: Subject) -> NDArray[np.float64]:
    """Return Σ|g ⊙ ΔW| `(n_units, n_formats)` in nats per token, g the gradient of the language-model loss with every unit in the priced format; NaN
    where a pair is not offered.

    One forward and one backward pass for each format.
    """
    table = np.full(subject.space.offered.shape, np.nan)
    for f in np.flatnonzero(subject.space.offered.any(axis=0)):
        units = np.flatnonzero(subject.space.offered[:, f])
        alone = _only(subject, units, int(f))
        at = operating_point(alone.space, np.full(len(units), f))
        table[units, f] = measure_products(alone, Sweep(TextLabels(), AbsoluteProduct(), at)).restored_per_token()
    return table


def alignment_table(subject: Subject) -> NDArray[np.float64]:
    """Return ⟨g, W_format − W⟩ `(n_units, n_formats)` in nats per token, g the gradient of the divergence from the original with every unit in its
    smallest format; NaN where a pair is not offered.

    mlx-lm's score of a unit is the price of its low format less that of its high one. A price is negative where the coarse weights compensate for
    errors elsewhere. Two forward passes and one backward pass.
    """
    products = measure_products(subject, Sweep(FromOriginal(), at=operating_point(subject.space, subject.space.smallest())))
    table = products.per_token() - products.restored_per_token()[:, None]
    return np.where(subject.space.offered, table, np.nan)


def _only(subject: Subject, units: NDArray[np.int64], form: int) -> Subject:
    """Return the subject restricted to some of the units and one format."""
    space = subject.space
    offered = np.zeros((len(units), len(space.formats)), dtype=np.bool_)
    offered[:, form] = True
    few = replace(space, units=tuple(space.units[u] for u in units), size_bits=space.size_bits[units], offered=offered)
    return replace(subject, space=few)
