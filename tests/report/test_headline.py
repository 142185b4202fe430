from dataclasses import replace

from bitwright.report import Quality, RunSummary
from bitwright.report.headline import headline


def test_it_names_model_size_divergence_and_the_best_rival_that_fits(summary: RunSummary) -> None:
    words = headline(summary)
    assert words.result == "SmolLM2-135M in 89.81 MB at 0.0365 ± 0.0013 nats/token from the original"
    assert words.comparison == "Best uniform format within 90.00 MB: Q4_1, 85.95 MB at 0.0542 ± 0.0019 nats/token; this plan is 33 % lower."


def test_without_a_budget_rivals_are_no_larger_than_the_plan(summary: RunSummary) -> None:
    assert headline(replace(summary, budget=None)).comparison.startswith("Best uniform format of at most that size: Q4_1")


def test_a_prediction_is_compared_with_predictions_and_said_to_be_one(summary: RunSummary) -> None:
    guessed = tuple(replace(candidate, measured=None) if candidate.chosen else candidate for candidate in summary.candidates)
    words = headline(replace(summary, candidates=guessed))
    assert words.result.endswith("(predicted, not measured)")
    assert "±" not in words.comparison


def test_a_difference_within_the_errors_is_not_sold_as_one(summary: RunSummary) -> None:
    vague = Quality(0.0365, 0.02, 18.0, 0.8, 1000)
    unsure = tuple(replace(candidate, measured=vague) if candidate.chosen else candidate for candidate in summary.candidates)
    assert "within two standard errors" in headline(replace(summary, candidates=unsure)).comparison


def test_a_plan_that_lost_is_said_to_be_higher(summary: RunSummary) -> None:
    bad = Quality(0.2, 0.001, 18.0, 0.8, 1000)
    lost = tuple(replace(candidate, measured=bad) if candidate.chosen else candidate for candidate in summary.candidates)
    assert "% higher" in headline(replace(summary, candidates=lost)).comparison


def test_no_rival_is_said_plainly(summary: RunSummary) -> None:
    assert headline(replace(summary, candidates=(summary.chosen,))).comparison == "No uniform format to compare with was tried within 90.00 MB."
