"""PQ index: sparsity of a unit's weights, from 0 if all have equal magnitude to 1 − d^(1/q − 1/p) if only one is nonzero.

    PQI = 1 − d^(1/q − 1/p) · ‖w‖_p / ‖w‖_q        d weights, 0 < p < q

Diao et al., "Pruning Deep Neural Networks from a Sparsity Perspective" (ICLR 2023, 2302.05601), definition 1, by default with p = ½ and q = 1. The
larger the index, the larger the share of the unit that their bound allows to prune, so the score is the negative index. That prunable units also
tolerate low precision is an assumption not made in that paper.

Cost: no pass.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import PackedTensors
from bitwright.spaces import Space, Unit

_WEIGHTS_AT_ONCE = 1 << 22


def pq_index(weights: NDArray[np.floating], p: float, q: float) -> float:
    """Return the PQ index of `weights` of any shape, 0 to 1; 0 if all are zero.

    Raises:
        ValueError: not 0 < p < q.
    """
    return _index(_power_sums(weights, p, q), p, q)


def pq_scores(space: Space, levels: PackedTensors, *, p: float = 0.5, q: float = 1.0) -> NDArray[np.float64]:
    """Return −PQI of all weights of each unit `(n_units,)`.

    Raises:
        ValueError: not 0 < p < q.
    """

    def score(unit: Unit) -> float:
        sums = [_power_sums(levels.source.read(tensor), p, q) for tensor in unit.tensors]
        return -_index(np.sum(sums, axis=0), p, q)

    return np.array([score(unit) for unit in space.units])


def _power_sums(weights: NDArray[np.floating], p: float, q: float) -> NDArray[np.float64]:
    """Return Σ|w|^p, Σ|w|^q and the number of weights: `(3,)`."""
    flat, sums = weights.reshape(-1), np.array([0.0, 0.0, weights.size])
    for start in range(0, len(flat), _WEIGHTS_AT_ONCE):
        sizes = np.abs(flat[start : start + _WEIGHTS_AT_ONCE], dtype=np.float64)
        sums[:2] += (sizes**p).sum(), (sizes**q).sum()
    return sums


def _index(sums: NDArray[np.float64], p: float, q: float) -> float:
    if not 0 < p < q:
        raise ValueError(f"a PQ index needs 0 < p < q, not p = {p} and q = {q}")
    of_p, of_q, n_weights = sums
    return float(1 - n_weights ** (1 / q - 1 / p) * of_p ** (1 / p) / of_q ** (1 / q)) if of_q > 0 else 0.0
