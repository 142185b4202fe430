"""Sentence on the candidate that a plan is."""

import pytest

from bitwright.report import whose_plan
from bitwright.spaces import PlannedEffort, Provenance


@pytest.mark.parametrize(
    ("won", "said"),
    [
        ("method", "The plan is auto's own, found with 4 evaluations and 32,768 tokens."),
        ("table", "The plan is the optimum of the sensitivity table: auto found none better with 4 evaluations and 32,768 tokens."),
        ("uniform", "The plan is a uniform allocation: auto found none better with 4 evaluations and 32,768 tokens."),
    ],
)
def test_a_plan_says_which_candidate_it_is(won: str, said: str) -> None:
    effort = PlannedEffort(evaluations=4, tokens=32_768, minutes=1)
    known = {"bitwright": "1", "strategy": "knapsack", "sensitivity": "gradient", "calibration": "self", "seed": 0, "budget": "90MB"}
    assert whose_plan(Provenance(**known, won=won, method="auto", effort=effort)) == said  # type: ignore[arg-type]
    assert not whose_plan(Provenance(**known))  # type: ignore[arg-type]
