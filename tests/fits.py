"""A finished fit of a tiny model, for the fixtures of `tests/model_fixtures.py`."""

from dataclasses import dataclass
from pathlib import Path

import bitwright as bw
from bitwright.pipeline.verbs import Fitted
from bitwright.spaces import Budget
from tests.runs import BRIEF, small


@dataclass(frozen=True, eq=False)
class Fit:
    """Finished fit: its settings and budget, its folder, and its result."""

    settings: bw.Settings
    budget: Budget
    folder: Path
    fitted: Fitted


def made(model: Path, folder: Path) -> Fit:
    """Fit of a model at 5 bits per weight."""
    settings, budget = small(model, formats=("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q3_K")), bw.parse_budget("5bpw")
    return Fit(settings, budget, folder, bw.fit(settings, budget, folder, by=BRIEF))
