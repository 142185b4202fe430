"""Search problem: what a search knows beforehand, and what it may ask of the model.

Strategies are given the parts that they need, so that one can be tested with a lambda; a method (see `bitwright.methods`) picks those parts out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from bitwright.search.solvers.constraints import Row
from bitwright.search.strategies.strategy import Refit
from bitwright.spaces import Choice, Choices, Space

Table = NDArray[np.float64]
#: a choice `(n_units,)` -> slopes and curvatures `(n_units, n_formats)`, nats/token, of a step to each format; zero at a unit's own format
Expand = Callable[[Choice], tuple[Table, Table]]
#: shares of the formats `(n_units, n_formats)`, sequences of the search text by index `(n,)` -> the divergence of the mixed weights on them in
#: nats/token, and its slope by each share less their mean over the unit `(n_units, n_formats)`
Mix = Callable[[Table, NDArray[np.int64]], tuple[float, Table]]


def _no_model(*asked: object) -> NoReturn:
    """Raise: only a problem with a model can answer."""
    raise ValueError(f"a problem without a model cannot answer for {asked}")


@dataclass(frozen=True, eq=False)
class Problem:
    """Search problem, common to all strategies and methods.

    `start` `(n, n_units)` holds choices to measure first, the best uniform allocations among them, and may be empty. A full measurement takes
    `n_sequences` sequences. All randomness comes from `seed`. Strategies that support side constraints ask only for choices that satisfy the `rows`.

    The rest is there for a problem with a model. `tables` are the run's sensitivity table `(n_units, n_formats)` and a second one, whose optimum is
    worth measuring too, and a sequence has `sequence_length` tokens. `refit` returns the named predictor for a space, `price` the sensitivity table
    of a proxy, and `score` its scores `(n_units,)` for the units of a space, higher for more important ones; tied units have one score. Tables and
    scores are computed on first use and cached, and the tokens they read count once towards the effort. `measure` returns the divergence of a choice
    on the whole calibration text, in nats per token, and counts too. `mix` returns the divergence of mixed weights with its slopes, and counts too.
    `expand`, where the run has gradients, returns slopes and curvatures at a choice.
    """

    space: Space
    start: Choices
    n_sequences: int
    seed: int
    rows: tuple[Row, ...] = ()
    tables: tuple[Table, ...] = ()
    sequence_length: int = 0
    refit: Callable[[str, Space], Refit] = _no_model
    price: Callable[[str], Table] = _no_model
    score: Callable[[str, Space], NDArray[np.float64]] = _no_model
    measure: Callable[[Choice], float] = _no_model
    mix: Mix = _no_model
    expand: Expand | None = None

    def __post_init__(self) -> None:
        if self.start.ndim != 2 or not self.space.offered[np.arange(len(self.space.units)), self.start].all():
            raise ValueError(f"starting choices must be rows of {len(self.space.units)} offered formats, these are of shape {self.start.shape}")

    @property
    def unstarted(self) -> "Problem":
        """The problem without initial choices, for a method that has none."""
        return replace(self, start=self.start[:0])

    def start_within(self, budget_bits: int) -> Choices:
        """Return the choices of `start` `(n, n_units)` whose file has at most `budget_bits` and which satisfy the rows."""
        return self.kept(self.start[self.space.total_bits(self.start) <= budget_bits])

    def kept(self, choices: Choices) -> Choices:
        """Return the rows of `choices` `(n, n_units)` that satisfy the side constraints."""
        return choices[[all(row.holds(choice) for row in self.rows) for choice in choices]] if self.rows else choices

    def random(self) -> np.random.Generator:
        """Return a new random generator from `seed`, the same each time."""
        return np.random.default_rng(self.seed)
