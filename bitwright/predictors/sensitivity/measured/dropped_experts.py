"""Measured divergence of dropping each expert.

A local quadratic model describes a small change of the weights with the router's selections unchanged. A dropped expert is not a small change, and
its tokens are rerouted. So each expert is dropped alone and the divergence is measured, with the same rerouting as in the finished model.

A layer must retain as many experts as a token uses, so of n experts with k per token only the n − k cheapest may be dropped: then every choice of the
space is valid. Of two similar experts that replace each other only one may be dropped, since each is cheap only while the other remains.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Expert
from bitwright.objectives import Routing
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.predictors.sensitivity.text_divergence import open_divergence
from bitwright.spaces import DROP, Choice, Space

Table = NDArray[np.float64]
#: sensitivities in nats per token, comparable with measured divergences
NATS_PROXIES = ("gradient", "joint", "gradient-raw", "measured")


def may_drop(space: Space) -> bool:
    """Return whether some expert may be dropped."""
    return DROP in space.formats and bool(space.offered[:, space.formats.index(DROP)].any())


def stored(space: Space) -> Space:
    """Return the space without dropping."""
    return space.narrowed(np.array([[form != DROP for form in space.formats]]))


def drop_losses(subject: Subject) -> NDArray[np.float64]:
    """Measure the divergence in nats per token of dropping each unit alone `(n_units,)`, NaN where it is not offered; one forward pass for each."""
    space = subject.space
    column = space.formats.index(DROP)
    offered = np.flatnonzero(space.offered[:, column])
    losses = np.full(len(space.units), np.nan)
    with open_divergence(subject) as divergence, subject.progress.stage("Dropping one expert at a time", len(offered)) as advance:
        for u in offered:
            losses[u] = divergence.of_one(int(u), column)
            advance(1)
    return losses


def limit_drops(space: Space, losses: NDArray[np.float64], *, routing: Routing, replacements: Mapping[Expert, int]) -> Space:
    """Restrict dropping to the experts of least `losses` `(n_units,)` in each layer, so that every choice leaves as many experts as a token uses.

    No expert is dropped together with its replacement in `replacements`.
    """
    column, offered = space.formats.index(DROP), space.offered.copy()
    experts = np.flatnonzero(offered[:, column])
    offered[:, column] = False
    layers = np.array([space.units[u].layer for u in experts])
    for layer in np.unique(layers):
        in_layer, of_layer = experts[layers == layer], routing.layer == layer
        n_at_most, taken = int(of_layer.sum() - routing.n_at_once[of_layer].max()), set[int]()
        for u in in_layer[np.argsort(losses[in_layer], kind="stable")]:
            if len(taken) < n_at_most and replacements.get((int(layer), space.units[u].expert), -1) not in taken:
                taken.add(space.units[u].expert)
                offered[u, column] = True
    return space.narrowed(offered)


def with_drops(table: Table, space: Space, losses: NDArray[np.float64]) -> Table:
    """Insert the `losses` `(n_units,)` of dropping into the table `(n_units, n_formats)` in nats per token, where dropping is offered."""
    priced, column = table.copy(), space.formats.index(DROP)
    priced[:, column] = np.where(space.offered[:, column], losses, np.nan)
    return priced


def moved(slopes: Table, curvatures: Table, choice: Choice, *, table: Table, space: Space) -> tuple[Table, Table]:
    """Replace the entries for dropping and restoring an expert in an expansion around `choice` `(n_units,)` by differences of `table`, since a Taylor
    expansion does not cover them. All tables are `(n_units, n_formats)`.
    """
    column, rows = space.formats.index(DROP), np.arange(len(choice))
    steps = np.where(space.offered, table - table[rows, choice][:, None], 0.0)
    by_table = np.zeros(space.offered.shape, dtype=np.bool_)
    by_table[:, column] = True
    by_table[choice == column] = True
    return np.where(by_table, steps, slopes), np.where(by_table, 0.0, curvatures)
