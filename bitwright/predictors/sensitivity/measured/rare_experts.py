"""Experts that the calibration text hardly visits: too little was seen of them for their price to mean anything.

Every proxy that reads text prices an expert by the tokens that it sees, so one that sees none looks free, and a search would give it the fewest bits
there are (as PMQ does: MC-MoE, ICLR 2025). Here an expert is never cheaper than if it had seen `MINIMUM_TOKENS` tokens, each at what a token costs
in the other experts of its layer:

    price(u, f) ≥ MINIMUM_TOKENS · median over the layer's other experts v of price(v, f) / tokens(v)
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import TextError
from bitwright.objectives import Routing
from bitwright.spaces import Space

MINIMUM_TOKENS = 32


def rare_experts(routing: Routing) -> list[str]:
    """The experts that saw fewer than `MINIMUM_TOKENS` tokens, by name (`blk.3.expert.7`)."""
    rows = np.flatnonzero(routing.n_chosen < MINIMUM_TOKENS)
    return [f"blk.{routing.layer[row]}.expert.{routing.expert[row]}" for row in rows]


def floored_table(table: NDArray[np.float64], space: Space, routing: Routing) -> NDArray[np.float64]:
    """`table` `(n_units, n_formats)` with the prices of rarely chosen experts raised to the floor. Units that are no single expert stay as they are.

    Raises:
        TextError: in a layer no expert that is decided about has been seen often enough to tell what a token costs.
    """
    n_chosen = np.array([_n_chosen(unit.layer, unit.expert, routing) for unit in space.units])  # (n_units,), -1 for what is no expert
    kinds = np.array([f"{unit.layer} {unit.kind}" for unit in space.units])
    floored = table.copy()
    for u in np.flatnonzero((n_chosen >= 0) & (n_chosen < MINIMUM_TOKENS)):
        others = (kinds == kinds[u]) & (n_chosen >= MINIMUM_TOKENS)
        if not others.any():
            layer = space.units[u].layer
            raise TextError(
                f"Calibration must send {MINIMUM_TOKENS} tokens to some expert of every layer; in layer {layer} none got more than "
                f"{n_chosen[(kinds == kinds[u])].max()}: give more calibration text, or text of another kind."
            )
        floored[u] = np.fmax(table[u], MINIMUM_TOKENS * _median(table[others] / n_chosen[others, None]))
    return np.where(np.isnan(table), table, floored)


def _n_chosen(layer: int, expert: int, routing: Routing) -> int:
    return int(routing.n_chosen[routing.row_of(layer, expert)]) if expert >= 0 else -1


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each column `(n, n_formats)`, of those that are there; NaN where none is."""
    known = ~np.isnan(values).all(axis=0)
    medians = np.full(values.shape[1], np.nan)
    medians[known] = np.nanmedian(values[:, known], axis=0)
    return medians
