"""Measured divergence of each KV cache type, alone and with all weights as in the original.

Keys and values are not weights, so no weight gradient prices them; there are few types and each takes one forward pass, so they are measured. That
the costs of keys, values and weights add up is an assumption of the table, as for any two units; a search measures whole plans in the end.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.subject import Subject
from bitwright.predictors.sensitivity.text_divergence import open_divergence
from bitwright.spaces import CacheTypes, Choice, Space, weight_space

Table = NDArray[np.float64]


def cache_losses(subject: Subject, space: Space) -> tuple[Table, int]:
    """Measure the divergence in nats per token of keys and of values in each type `(2, n_formats)`, NaN where `space` does not offer it; return it
    with the number of tokens read.

    `subject` has the space of the weights alone.
    """
    offered, losses, n_passes = space.offered[-2:], np.full((2, len(space.formats)), np.nan), 1
    with open_divergence(subject) as divergence, subject.progress.stage("Measuring cache types", int(offered.sum())) as advance:
        for u, f in np.argwhere(offered):
            name = space.formats[f].name
            types = CacheTypes(keys=name) if u == 0 else CacheTypes(values=name)
            losses[u, f] = 0.0 if types.is_default else divergence.of_cache(types)
            n_passes += not types.is_default
            advance(1)
    return losses, n_passes * subject.tokens.n_tokens


def with_cache_losses(table: Table, losses: Table, *, like: Table) -> Table:
    """Append the cache's `losses` `(2, n_formats)` to a table `(n_weight_units, n_formats)`, converted to its units by the median ratio of the table
    to `like`, a table of the same pairs in nats per token.
    """
    known = (table > 0) & (like > 0)
    factor = float(np.median(table[known] / like[known])) if known.any() else 1.0
    return np.concatenate([table, factor * losses])


def with_cache_steps(slopes: Table, choice: Choice, *, table: Table, space: Space) -> Table:
    """Append the changes of cache types to the slopes of the weights `(n_weight_units, n_formats)` around `choice` `(n_units,)`.

    They are differences of `table` `(n_units, n_formats)`, since an expansion in the weights does not cover the cache.
    """
    n = len(weight_space(space).units)
    steps = table[n:] - table[np.arange(n, len(choice)), choice[n:]][:, None]
    return np.concatenate([slopes, np.where(space.offered[n:], steps, 0.0)])
