"""Heat maps: the colours of a few known sensitivities."""

import re
from dataclasses import replace

import numpy as np
import pytest

from bitwright.report.charts.heat_maps import common_format, sensitivity_map
from bitwright.report.summary import RunSummary


def looks(summary: RunSummary, nats: list[float]) -> list[str]:
    """Return the colour classes of the units when the first have these sensitivities in the common format, and all others none."""
    table = np.array(summary.table)
    column = summary.space.formats.index(common_format(summary))
    table[:, column] = 0.0
    table[: len(nats), column] = nats
    page = sensitivity_map(replace(summary, table=table))
    return sorted(re.findall(r'class="cell (\w+)"', page), reverse=True)


@pytest.mark.parametrize(("nats", "expected"), [([0.037], ["s8", "s0"]), ([0.037, 0.037], ["s8", "s8", "s0"]), ([0.001, 0.1], ["s8", "s0"])])
def test_what_is_sensitive_stands_out_from_zeros(summary: RunSummary, nats: list[float], expected: list[str]) -> None:
    assert looks(summary, nats)[: len(expected)] == expected
