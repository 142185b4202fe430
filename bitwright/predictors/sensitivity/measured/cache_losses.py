"""What the types of the cache cost, measured: each alone, with all weights as in the original.

Keys and values are no weights, so no gradient of a weight prices them. There are few types and each takes one forward pass, so they are measured.
That keys and values add up, and that both add to the errors of weights, is the table's assumption as of any two units; what a search settles on is
measured whole.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.subject import Subject
from bitwright.predictors.sensitivity.text_divergence import on_text
from bitwright.spaces import CacheTypes, Choice, Space, of_weights

Table = NDArray[np.float64]


def cache_losses(subject: Subject, space: Space) -> tuple[Table, int]:
    """The divergence in nats per token of keys, and of values, in each type that `space` offers them `(2, n_formats)`, NaN where it does not; and the
    tokens that were read for it.

    `subject` has the space of the weights alone.
    """
    offered, losses, n_passes = space.offered[-2:], np.full((2, len(space.formats)), np.nan), 1
    with on_text(subject) as divergence, subject.progress.stage("Measuring types of the cache", int(offered.sum())) as advance:
        for u, f in np.argwhere(offered):
            name = space.formats[f].name
            types = CacheTypes(keys=name) if u == 0 else CacheTypes(values=name)
            losses[u, f] = 0.0 if types.is_plain else divergence.of_cache(types)
            n_passes += not types.is_plain
            advance(1)
    return losses, n_passes * subject.tokens.n_tokens


def with_cache_losses(table: Table, losses: Table, *, like: Table) -> Table:
    """The table `(n_weight_units, n_formats)` with the `losses` `(2, n_formats)` of the cache below, in the units of the table: `like` is a table of
    the same pairs in nats per token, and what most pairs of both differ by is the factor.
    """
    known = (table > 0) & (like > 0)
    factor = float(np.median(table[known] / like[known])) if known.any() else 1.0
    return np.concatenate([table, factor * losses])


def with_cache_steps(slopes: Table, choice: Choice, *, table: Table, space: Space) -> Table:
    """Slopes of the weights `(n_weight_units, n_formats)` around `choice` `(n_units,)` with what another type of the cache changes by `table`
    `(n_units, n_formats)`: an expansion of the weights cannot know it.
    """
    n = len(of_weights(space).units)
    steps = table[n:] - table[np.arange(n, len(choice)), choice[n:]][:, None]
    return np.concatenate([slopes, np.where(space.offered[n:], steps, 0.0)])
