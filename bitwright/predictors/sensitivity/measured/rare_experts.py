"""Price floors for rarely selected experts, which have too few calibration tokens for a reliable price.

Every proxy that reads text prices an expert by the tokens routed to it, so an expert without tokens looks free, and a search would give it the fewest
bits (as PMQ does: MC-MoE, ICLR 2025). Here the price of an expert is at least that of `MINIMUM_TOKENS` tokens, each at the cost of a token in the
other experts of its layer:

    price(u, f) ≥ MINIMUM_TOKENS · median over the layer's other experts v of price(v, f) / tokens(v)
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import TextError
from bitwright.objectives import Routing
from bitwright.spaces import Space

MINIMUM_TOKENS = 32


def rare_experts(routing: Routing) -> list[str]:
    """Return the names (`blk.3.expert.7`) of the experts with fewer than `MINIMUM_TOKENS` tokens."""
    rows = np.flatnonzero(routing.n_chosen < MINIMUM_TOKENS)
    return [f"blk.{routing.layer[row]}.expert.{routing.expert[row]}" for row in rows]


def floored_table(table: NDArray[np.float64], space: Space, routing: Routing) -> NDArray[np.float64]:
    """Raise the prices of rarely selected experts in `table` `(n_units, n_formats)` to the floor. Units that are not single experts stay unchanged.

    Raises:
        TextError: no unit of a layer is an expert with enough tokens to estimate the cost of a token.
    """
    n_chosen = np.array([_n_chosen(unit.layer, unit.expert, routing) for unit in space.units])  # (n_units,), -1 for other units
    kinds = np.array([f"{unit.layer} {unit.kind}" for unit in space.units])
    floored = table.copy()
    for u in np.flatnonzero((n_chosen >= 0) & (n_chosen < MINIMUM_TOKENS)):
        others = (kinds == kinds[u]) & (n_chosen >= MINIMUM_TOKENS)
        if not others.any():
            layer = space.units[u].layer
            raise TextError(
                f"Calibration must route {MINIMUM_TOKENS} tokens to some expert of every layer; in layer {layer} none got more than "
                f"{n_chosen[(kinds == kinds[u])].max()}: give more calibration text, or text of another kind."
            )
        floored[u] = np.fmax(table[u], MINIMUM_TOKENS * _median(table[others] / n_chosen[others, None]))
    return np.where(np.isnan(table), table, floored)


def _n_chosen(layer: int, expert: int, routing: Routing) -> int:
    """Return the number of tokens of an expert, -1 for other units and for an expert whose router is not known."""
    rows = np.flatnonzero((routing.layer == layer) & (routing.expert == expert))
    return int(routing.n_chosen[rows[0]]) if len(rows) else -1


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of each column of `(n, n_formats)` without NaN; NaN for a column of NaN alone."""
    known = ~np.isnan(values).all(axis=0)
    medians = np.full(values.shape[1], np.nan)
    medians[known] = np.nanmedian(values[:, known], axis=0)
    return medians
