"""Prior of sensitivities by role, depth, shape and family: a table from the names of a model's tensors, without text and without gradients.

    table[u, f] = Σ_t prior(role of t, depth of t) · share of t · relative weight error[u, f]

over the tensors t of unit u. The prior is what published models let expect of the tensor whole (`published_models`), drawn towards the median: of
models without a near relative among the others, measured logarithms rise by three quarters of what is expected
(`python -m benchmarks.published_tables`, docs/measurements.md). An expert, or a range of channels, has the share that its weights are of all that
have this role in its block. The relative weight error adds the effect of the format, which the prior is not about, so every target can be priced
whose formats round weights.

Cost: no pass.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.names.published_models import OUTSIDE, Family, Place, PublishedModel, expected, published_models
from bitwright.spaces import Tensor, Unit, discover, expert_of, role_of

_RISE = 0.75  # of measured logarithms, by what is expected of a model without a near relative


def prior_table(tensors: Sequence[Tensor], units: Sequence[Unit], *, relative_error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the table `(n_units, n_formats)` of `units` of a model with these `tensors`, in arbitrary units: `relative_error` `(n_units, n_formats)`
    times the prior of each unit, NaN where the former is NaN.
    """
    weights = prior(published_models(), tensors, units)
    table: NDArray[np.float64] = relative_error * weights[:, None]
    return table


def prior(models: Sequence[PublishedModel], tensors: Sequence[Tensor], units: Sequence[Unit]) -> NDArray[np.float64]:
    """Return the prior sensitivity of each of `units` `(n_units,)`, 1 for the median tensor of a published model, by those of published `models`."""
    matrices = discover(tensors)
    family, places = family_of(matrices), places_of(matrices)
    sizes = Counter[Place]()
    for unit in matrices:
        sizes[places[unit.tensors[0].name]] += unit.n_weights
    known = dict(zip(sizes, np.exp(_RISE * expected(models, family, [*sizes])), strict=True))

    def of_tensor(tensor: Tensor) -> float:
        place = places[tensor.name]
        return float(known[place]) * tensor.n_weights / sizes[place]

    return np.array([sum(of_tensor(tensor) for tensor in unit.tensors) for unit in units])


def family_of(matrices: Sequence[Unit]) -> Family:
    """Return the family of a model with these matrices."""
    return Family(frozenset(unit.kind for unit in matrices), sum(unit.n_weights for unit in matrices))


def places_of(matrices: Sequence[Unit]) -> dict[str, Place]:
    """Return the place of each tensor of a model with these matrices, by its name."""
    n_blocks = 1 + max(unit.layer for unit in matrices)
    return {tensor.name: _place(tensor, n_blocks) for unit in matrices for tensor in unit.tensors}


def _place(tensor: Tensor, n_blocks: int) -> Place:
    layer, _ = expert_of(tensor.name)
    return Place(role_of(tensor), OUTSIDE if layer < 0 else (layer + 0.5) / n_blocks)
