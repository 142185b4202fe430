"""Values of a report on a finished run, complete when built.

Divergences are KL divergences from the original model in nats per token: 0 is a model that predicts exactly what the original predicts.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitwright.report.calibration_texts import TextComparison
from bitwright.report.cost_front import CostFront
from bitwright.report.limits import SizeLimit
from bitwright.report.predicted_front import PredictedFront
from bitwright.report.search_history import SearchHistory
from bitwright.report.shipping import Shipping
from bitwright.report.step_note import StepNote
from bitwright.report.structure_note import StructureNote
from bitwright.report.tables.experts import ExpertUse
from bitwright.spaces import Choice, Format, Space


@dataclass(frozen=True)
class Quality:
    """Quality of a plan, measured on held-out text.

    `nats_per_token` is the mean KL divergence from the original and `standard_error` its standard error; `top1_agreement` is the share (0 to 1) of
    the `n_tokens` tokens where both models have the same most likely next token.
    """

    nats_per_token: float
    standard_error: float
    perplexity: float
    top1_agreement: float
    n_tokens: int


@dataclass(frozen=True, eq=False)
class Candidate:
    """Candidate plan for the whole model, `choice` `(n_units,)`; `chosen` marks the run's result. `summed` is the sum of its prices, in the units of
    the sensitivity table, and `predicted_nats` what the run's measured plans make of that; `measured` is None if it was predicted only.
    """

    label: str
    kind: Literal["plan", "uniform", "front"]
    choice: Choice
    size_bytes: int
    bits_per_weight: float
    summed: float
    predicted_nats: float
    measured: Quality | None
    chosen: bool

    def __post_init__(self) -> None:
        if not np.isfinite(self.predicted_nats):
            raise ValueError(f"a candidate's prediction is a number; that of {self.label} is {self.predicted_nats}")

    @property
    def nats_per_token(self) -> float:
        """Measured divergence, or the predicted one where there is no measurement."""
        return self.measured.nats_per_token if isinstance(self.measured, Quality) else self.predicted_nats


@dataclass(frozen=True)
class Stage:
    """Cost of one step of the run; `n_tokens` is 0 for a step that reads no text."""

    name: str
    seconds: float
    n_tokens: int
    peak_memory_bytes: int


@dataclass(frozen=True, eq=False)
class RunSummary:
    """Summary of a finished run. `budget`, `shipping` and `texts` are None where there is none.

    `table` `(n_units, n_formats)` is the predicted divergence of one unit in one format while all others stay as in the original, NaN where the
    pair is not offered. The predicted front is `front_sizes_bytes` `(n_points,)` against `front_nats` `(n_points,)`, sizes ascending, which are made
    of the sums of prices `front_sums` `(n_points,)`; `within_bits` is that of formats that store every weight, where there are others. Of the
    `candidates` exactly one is chosen. `courses` are the histories of the searches, none where no search measured plans. `shipping` compares the
    candidates where another rounding ships than the search used; they are then measured with the one that ships. `experts` are those of a mixture
    with their formats in the chosen candidate. `texts` compares the calibration texts where there are several, and `cost_fronts` has the front on
    three axes for each cost that was asked for, and `structure` compares a plan with parts taken away with the chosen one, where they were offered.
    """

    model: str
    target: str
    original_bytes: int
    n_weights: int
    budget: SizeLimit | None
    space: Space
    table: NDArray[np.float64]
    front_sizes_bytes: NDArray[np.int64]
    front_sums: NDArray[np.float64]
    front_nats: NDArray[np.float64]
    candidates: tuple[Candidate, ...]
    courses: tuple[SearchHistory, ...]
    stages: tuple[Stage, ...]
    settings: dict[str, str]
    reference_perplexity: float
    shipping: Shipping | None
    experts: tuple[ExpertUse, ...]
    texts: TextComparison | None
    cost_fronts: tuple[CostFront, ...]
    structure: StructureNote | None = None
    steps: tuple[StepNote, ...] = ()
    within_bits: PredictedFront | None = None

    def __post_init__(self) -> None:
        n_units = len(self.space.units)
        if self.table.shape != (n_units, len(self.space.formats)):
            raise ValueError(f"a table of shape {self.table.shape} is not one of {n_units} units and {len(self.space.formats)} formats")
        if not self.front_sizes_bytes.shape == self.front_nats.shape == self.front_sums.shape or (np.diff(self.front_sizes_bytes) < 0).any():
            raise ValueError("a front has one divergence and one sum for each size, sizes ascending")
        if sum(candidate.chosen for candidate in self.candidates) != 1:
            raise ValueError("exactly one candidate is the chosen one")
        if any(len(front.of_candidates) != len(self.candidates) for front in self.cost_fronts):
            raise ValueError("a cost is known for every candidate")
        for candidate in self.candidates:
            if candidate.choice.shape != (n_units,):
                raise ValueError(f"{candidate.label} has a choice of shape {candidate.choice.shape}, not ({n_units},)")

    @property
    def chosen(self) -> Candidate:
        """Candidate that the run chose."""
        return next(candidate for candidate in self.candidates if candidate.chosen)

    @property
    def chosen_formats(self) -> tuple[Format, ...]:
        """Format of each unit in the chosen candidate."""
        return tuple(self.space.formats[index] for index in self.chosen.choice)

    @property
    def chosen_nats(self) -> NDArray[np.float64]:
        """Predicted divergence of each unit in the chosen candidate `(n_units,)`."""
        nats: NDArray[np.float64] = self.table[np.arange(len(self.space.units)), self.chosen.choice]
        return nats
