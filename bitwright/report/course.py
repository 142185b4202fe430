"""The course of a search as values: what it measured step by step, how far it had come by then, and how well its predictor knew beforehand.

All divergences here are of the text that was searched on; what candidates are worth on held-out text is told by `Quality`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.report.limits import NoLimit, SizeLimit


@dataclass(frozen=True)
class SearchStep:
    """One evaluation, and all that the search had spent when it was done.

    `nats_per_token` and its `standard_error` are of the first `n_sequences` sequences of the text; `tokens` (of forward and of backward passes) and
    `seconds` are cumulative.
    """

    size_bytes: int
    nats_per_token: float
    standard_error: float
    n_sequences: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Validation:
    """How well `predictor` foretold `n_plans` measurements that it had not learned from.

    Rank correlations `spearman` and `kendall`, NaN where they are undefined; the root mean square error `rmse_nats` in nats/token; `coverage`, the
    share (0 to 1) of the measurements that lay in their 90 % intervals.
    """

    predictor: str
    n_plans: int
    spearman: float
    kendall: float
    rmse_nats: float
    coverage: float


@dataclass(frozen=True, eq=False)
class Forecast:
    """The measurements that `validation` is about, each beside what was foretold of it: all `(n_plans,)`, nats/token.

    `standard_error` is that of `measured`; `low` and `high` are the ends of the interval that holds 90 % of such measurements.
    """

    measured: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    predicted: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    validation: Validation

    def __post_init__(self) -> None:
        columns = (self.measured, self.standard_error, self.predicted, self.low, self.high)
        if any(column.shape != (self.validation.n_plans,) for column in columns):
            raise ValueError(f"a forecast of {self.validation.n_plans} plans has columns of shapes {[column.shape for column in columns]}")
        if not all(np.isfinite(column).all() for column in columns):
            raise ValueError("a forecast holds finite numbers only")
        if (self.low > self.predicted).any() or (self.predicted > self.high).any():
            raise ValueError("a prediction lies within its interval")

    @property
    def is_held(self) -> NDArray[np.bool_]:
        """Which measurements lie in their intervals `(n_plans,)`."""
        return (self.low <= self.measured) & (self.measured <= self.high)


@dataclass(frozen=True)
class NoForecast:
    """The search used no predictor, or measured too little to put one to the test."""


@dataclass(frozen=True, eq=False)
class SearchCourse:
    """One search from beginning to end.

    `source` is where its `method` is described. `goal` is a limit of size, or none where the whole front was sought. `hypervolume` `(n_steps,)` is
    the area that was dominated after each step, as a share (0 to 1) of the best front known; `incumbent` `(n_steps,)` the least divergence so far
    among files that keep the goal, `inf` until there is one. `is_finished` tells whether the search ended by itself.
    """

    method: str
    source: str
    goal: SizeLimit | NoLimit
    steps: tuple[SearchStep, ...]
    hypervolume: NDArray[np.float64]
    incumbent: NDArray[np.float64]
    forecast: Forecast | NoForecast
    is_finished: bool

    def __post_init__(self) -> None:
        n_steps = len(self.steps)
        if self.hypervolume.shape != (n_steps,) or self.incumbent.shape != (n_steps,):
            raise ValueError(f"{n_steps} steps need as many areas and incumbents, not {self.hypervolume.shape} and {self.incumbent.shape}")
        if not np.isfinite(self.hypervolume).all() or np.isnan(self.incumbent).any():
            raise ValueError("the area of a front is a finite number, and an incumbent is no NaN")
        limit = self.goal.size_bytes if isinstance(self.goal, SizeLimit) else np.inf
        if np.isfinite(self.incumbent).any() and min(step.size_bytes for step in self.steps) > limit:
            raise ValueError(f"an incumbent is a file of at most {limit:,} bytes, and no step measured one")
        spent = np.array([(step.tokens, step.seconds) for step in self.steps]).reshape(n_steps, 2)
        if (np.diff(spent, axis=0) < 0).any():
            raise ValueError("what a search has spent never falls")

    @property
    def tokens(self) -> int:
        """All tokens that the search read."""
        return self.steps[-1].tokens if self.steps else 0

    @property
    def seconds(self) -> float:
        """All that the search took."""
        return self.steps[-1].seconds if self.steps else 0.0
