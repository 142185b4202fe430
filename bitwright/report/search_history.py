"""Search history: each evaluation, the best result so far, and the validation of the predictor.

All divergences here are on the search text; `Quality` has those of the candidates on held-out text.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.report.limits import SizeLimit


@dataclass(frozen=True)
class SearchStep:
    """Evaluation of one plan, with the cumulative cost of the search.

    `nats_per_token` and its `standard_error` are on the first `n_sequences` sequences of the text; `tokens` (of forward and of backward passes) and
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
    """Validation of `predictor` on `n_plans` measurements that it was not fitted to.

    Rank correlations `spearman` and `kendall`, NaN where they are undefined; the root mean square error `rmse_nats` in nats/token; `coverage`, the
    share (0 to 1) of the measurements within their 90 % prediction intervals.
    """

    predictor: str
    n_plans: int
    spearman: float
    kendall: float
    rmse_nats: float
    coverage: float


@dataclass(frozen=True, eq=False)
class Forecast:
    """Predictions and measurements of the plans of `validation`: all `(n_plans,)`, nats/token.

    `standard_error` is that of `measured`; `low` and `high` are the ends of the 90 % prediction interval.
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
    def is_covered(self) -> NDArray[np.bool_]:
        """Mask of the measurements within their intervals `(n_plans,)`."""
        return (self.low <= self.measured) & (self.measured <= self.high)


@dataclass(frozen=True, eq=False)
class SearchHistory:
    """History of one search.

    `source` is the reference of its `method`. `goal` is a size limit, or None for a search of the whole front; `forecast` None where no predictor was
    used, or too few plans were measured to validate it. `hypervolume` `(n_steps,)` is the dominated area after each step, as a share (0 to 1) of the
    best known front's; `incumbent` `(n_steps,)` the least divergence so far among files within the goal, `inf` until there is one. `is_finished`
    tells whether the search converged by itself.
    """

    method: str
    source: str
    goal: SizeLimit | None
    steps: tuple[SearchStep, ...]
    hypervolume: NDArray[np.float64]
    incumbent: NDArray[np.float64]
    forecast: Forecast | None
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
        """Total tokens that the search read."""
        return self.steps[-1].tokens if self.steps else 0

    @property
    def seconds(self) -> float:
        """Total seconds that the search took."""
        return self.steps[-1].seconds if self.steps else 0.0
