from dataclasses import replace

import numpy as np
import pytest

from bitwright.report import RunSummary


def test_the_chosen_candidate_is_the_one_that_is_marked(summary: RunSummary) -> None:
    assert summary.chosen.chosen
    assert len(summary.chosen_formats) == len(summary.space.units) == 211
    assert summary.chosen_nats.sum() == pytest.approx(summary.chosen.predicted_nats)


def test_a_summary_without_a_chosen_candidate_is_refused(summary: RunSummary) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        replace(summary, candidates=tuple(replace(candidate, chosen=False) for candidate in summary.candidates))


def test_a_table_of_another_space_is_refused(summary: RunSummary) -> None:
    with pytest.raises(ValueError, match="not one of 211 units"):
        replace(summary, table=summary.table[1:])


def test_a_front_out_of_order_is_refused(summary: RunSummary) -> None:
    with pytest.raises(ValueError, match="ascending"):
        replace(summary, front_sizes_bytes=summary.front_sizes_bytes[::-1])


def test_a_choice_of_another_space_is_refused(summary: RunSummary) -> None:
    short = replace(summary.chosen, choice=summary.chosen.choice[1:])
    with pytest.raises(ValueError, match="shape"):
        replace(summary, candidates=(short,))


def test_a_prediction_that_is_no_number_is_refused(summary: RunSummary) -> None:
    with pytest.raises(ValueError, match="is a number"):
        replace(summary.chosen, predicted_nats=np.nan)
