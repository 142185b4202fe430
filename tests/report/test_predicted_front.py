"""Front within bits beside that within all formats: in the chart, the table and JSON, and only where there are other formats."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bitwright.report import PredictedFront, RunSummary, front_json, front_table
from bitwright.report.page import page

FRONT = PredictedFront(np.array([10_000_000, 80_000_000, 250_000_000]), np.array([2.0, 0.5, 0.01]))


def test_a_size_has_the_divergence_of_the_largest_file_that_fits() -> None:
    assert FRONT.within(9_999_999) is None
    assert [FRONT.within(size_bytes) for size_bytes in (10_000_000, 79_999_999, 80_000_000, 10**9)] == [2.0, 2.0, 0.5, 0.01]


def test_a_front_has_ascending_sizes() -> None:
    with pytest.raises(ValueError, match="ascending"):
        PredictedFront(np.array([2, 1]), np.array([0.1, 0.2]))


def test_the_front_within_bits_is_drawn_and_printed_where_there_is_one(summary: RunSummary) -> None:
    both = replace(summary, within_bits=FRONT)
    assert page(both).count('class="predicted bits"') == 2  # the line and the legend
    assert 'class="predicted bits"' not in page(summary)
    headings = [str(column.header) for column in front_table(both).columns]
    assert "bits alone\nnats/token" in headings
    assert "bits alone\nnats/token" not in [str(column.header) for column in front_table(summary).columns]
    assert json.loads(front_json(both))["front_within_bits"][1] == {"size_bytes": 80_000_000, "predicted_nats_per_token": 0.5}
    assert json.loads(front_json(summary))["front_within_bits"] is None
