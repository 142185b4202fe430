from dataclasses import replace

import numpy as np

from bitwright.report import RunSummary
from bitwright.report.prices import Step, grow, shrink
from bitwright.report.tables.unit_table import exchange


def test_in_an_optimal_plan_nothing_shrinks_for_less_than_something_else_wins(summary: RunSummary) -> None:
    units = range(len(summary.space.units))
    down = [step.price for step in (shrink(summary, u) for u in units) if isinstance(step, Step)]
    up = [step.price for step in (grow(summary, u) for u in units) if isinstance(step, Step)]
    assert min(down) >= max(up) > 0
    assert "no tensor can shrink for less than" in exchange(summary)


def test_a_step_is_priced_in_nats_for_each_million_bytes(summary: RunSummary) -> None:
    u, space, now = 0, summary.space, int(summary.chosen.choice[0])
    step = shrink(summary, u)
    assert isinstance(step, Step)
    to = space.formats.index(step.form)
    saved_mb = (space.size_bits[u, now] - space.size_bits[u, to]) / 8e6
    assert np.isclose(step.price, (summary.table[u, to] - summary.table[u, now]) / saved_mb)
    assert saved_mb > 0


def test_the_smallest_cannot_shrink_and_the_finest_cannot_grow(summary: RunSummary) -> None:
    space = summary.space
    smallest = replace(summary.chosen, choice=space.smallest())
    finest = replace(summary.chosen, choice=np.where(space.offered, space.size_bits, 0).argmax(axis=1))
    assert shrink(replace(summary, candidates=(smallest,)), 0) is None
    assert grow(replace(summary, candidates=(finest,)), 0) is None
    only = space.narrowed(np.eye(len(space.formats), dtype=bool)[summary.chosen.choice])
    assert exchange(replace(summary, space=only)).startswith("No exchange is left")
