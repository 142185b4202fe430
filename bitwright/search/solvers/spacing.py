"""Choose points that are evenly spaced on a line together with fixed ones."""

import numpy as np
from numpy.typing import NDArray


def evenly_spaced(fixed: NDArray[np.float64], candidates: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Return the ascending indices of the `n` of `candidates` `(n_candidates,)` most evenly spaced together with all `fixed` `(n_fixed,)`.

    Where there are at most `n` candidates, all are returned.

    Most evenly means the least standard deviation of the gaps between neighbours, as in AMQ (Lee et al., EMNLP 2025), which optimises it with a
    genetic algorithm that may return another number than `n`. Gaps are counted from the least to the greatest of all points, chosen or not. Their
    number and sum are then fixed, so the sum of their squares is minimised: a shortest path with a fixed number of steps, found exactly.
    """
    if len(candidates) <= n:
        return np.arange(len(candidates))
    ends = np.concatenate([fixed, candidates])
    place = np.concatenate([[ends.min()], fixed, candidates, [ends.max()]])
    index = np.concatenate([np.full(1 + len(fixed), -1), np.arange(len(candidates)), [-1]])  # -1: fixed
    order = np.lexsort((np.arange(len(place)), place))
    return _shortest_path(place[order], index[order], n)


def _shortest_path(place: NDArray[np.float64], index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the candidates on the shortest path from the first to the last of `place` `(n_places,)` that visits `n` of them and all fixed points."""
    cost = np.full((len(place), n + 1), np.inf)  # of the best way to each place by so many candidates
    before = np.zeros((len(place), n + 1), dtype=np.int64)
    cost[0, 0] = 0.0
    kept = 0
    for i in range(1, len(place)):
        is_candidate = int(index[i] >= 0)
        ways = cost[kept:i] + ((place[i] - place[kept:i]) ** 2)[:, None]
        before[i] = kept + np.roll(ways.argmin(axis=0), is_candidate)
        cost[i] = np.roll(ways.min(axis=0), is_candidate)
        if is_candidate:
            cost[i, 0] = np.inf
        else:
            kept = i
    passed, i, left = [], len(place) - 1, n
    while i:
        i, left = before[i, left], left - int(index[i] >= 0)
        passed.append(index[i])
    return np.sort(np.array([j for j in passed if j >= 0], dtype=np.int64))
