"""What it costs to drop an expert, measured: no gradient knows it.

The local quadratic model asks what a small change of the weights does with all choices of the router as they are. An expert that is gone is no small
change, and its tokens go elsewhere. So each is dropped alone and the divergence is measured, by the very rerouting that the finished model has.

A layer must keep as many experts as a token is sent to, so of n experts at k a time only the n − k cheapest may be dropped: then every choice of a
space is possible. Of two twins only one may: each is free to drop as long as the other is there.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Expert
from bitwright.objectives import Routing
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.predictors.sensitivity.text_divergence import on_text
from bitwright.spaces import DROP, Choice, Space

Table = NDArray[np.float64]
#: sensitivities in nats per token, with which measured divergences can be compared
IN_NATS = ("gradient", "joint", "gradient-raw", "measured")


def may_drop(space: Space) -> bool:
    """Whether some expert may be dropped."""
    return DROP in space.formats and bool(space.offered[:, space.formats.index(DROP)].any())


def stored(space: Space) -> Space:
    """The space in which nothing is dropped."""
    return space.narrowed(np.array([[form != DROP for form in space.formats]]))


def drop_losses(subject: Subject) -> NDArray[np.float64]:
    """The divergence in nats per token of dropping each unit alone `(n_units,)`, NaN where that is not offered. One forward pass for each that is."""
    space = subject.space
    column = space.formats.index(DROP)
    droppable = np.flatnonzero(space.offered[:, column])
    losses = np.full(len(space.units), np.nan)
    with on_text(subject) as divergence, subject.progress.stage("Dropping one expert at a time", len(droppable)) as advance:
        for u in droppable:
            losses[u] = divergence.of_one(int(u), column)
            advance(1)
    return losses


def droppable(space: Space, losses: NDArray[np.float64], *, routing: Routing, heirs: Mapping[Expert, int]) -> Space:
    """The space in which of each layer only so many experts may be dropped that as many are left as a token is sent to: those of least `losses`
    `(n_units,)`, and none whose heir is among them.
    """
    column, offered = space.formats.index(DROP), space.offered.copy()
    experts = np.flatnonzero(offered[:, column])
    offered[:, column] = False
    layers = np.array([space.units[u].layer for u in experts])
    for layer in np.unique(layers):
        in_layer, of_layer = experts[layers == layer], routing.layer == layer
        n_at_most, taken = int(of_layer.sum() - routing.n_at_once[of_layer].max()), set[int]()
        for u in in_layer[np.argsort(losses[in_layer], kind="stable")]:
            if len(taken) < n_at_most and heirs.get((int(layer), space.units[u].expert), -1) not in taken:
                taken.add(space.units[u].expert)
                offered[u, column] = True
    return space.narrowed(offered)


def with_drops(table: Table, space: Space, losses: NDArray[np.float64]) -> Table:
    """The table `(n_units, n_formats)` in nats per token with the `losses` `(n_units,)` of dropping where that is offered."""
    priced, column = table.copy(), space.formats.index(DROP)
    priced[:, column] = np.where(space.offered[:, column], losses, np.nan)
    return priced


def moved(slopes: Table, curvatures: Table, choice: Choice, *, table: Table, space: Space) -> tuple[Table, Table]:
    """An expansion around `choice` `(n_units,)`, in which dropping an expert and taking one back cost what they do in `table`, as an expansion cannot
    know it. All tables are `(n_units, n_formats)`.
    """
    column, rows = space.formats.index(DROP), np.arange(len(choice))
    steps = np.where(space.offered, table - table[rows, choice][:, None], 0.0)
    by_table = np.zeros(space.offered.shape, dtype=np.bool_)
    by_table[:, column] = True
    by_table[choice == column] = True
    return np.where(by_table, steps, slopes), np.where(by_table, 0.0, curvatures)
