"""The front on three axes, as values, as a table and on the page."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from bitwright.report import CostFront, RunSummary
from bitwright.report.page import page
from bitwright.report.records import front_json
from bitwright.report.tables.cost_tables import candidate_costs_table, cost_front_table
from tests.report.test_page import Balance


@pytest.fixture(scope="module")
def axes(summary: RunSummary) -> CostFront:
    """Small files that are slow, and files a third larger that are fast."""
    sizes, nats = summary.front_sizes_bytes, summary.front_nats
    return CostFront(
        cost="seconds-per-token",
        unit="s/token",
        device="a <board>",
        sizes_bytes=np.concatenate([sizes, np.rint(1.3 * sizes).astype(np.int64)]),
        taken=np.concatenate([2e-10 * sizes, 1e-10 * sizes]),
        nats=np.concatenate([nats, nats]),
        of_candidates=np.array([1.5e-10 * candidate.size_bytes for candidate in summary.candidates]),
    )


@pytest.fixture(scope="module")
def with_axes(summary: RunSummary, axes: CostFront) -> RunSummary:
    return replace(summary, cost_fronts=(axes,))


def printed(table: object) -> str:
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as caught:
        console.print(table)
    return caught.get()


def test_a_ceiling_leaves_what_keeps_it(axes: CostFront) -> None:
    assert len(axes.ceilings) == 5
    assert axes.ceilings[-1] == pytest.approx(axes.taken.max())
    for ceiling in axes.ceilings:
        sizes, nats = axes.within(float(ceiling))
        assert (np.diff(sizes) > 0).all()
        assert (np.diff(nats) < 0).all()
        for size, least in zip(sizes, nats, strict=True):
            keeping = (axes.taken <= ceiling * (1 + 1e-12)) & (axes.sizes_bytes <= size)
            assert least == axes.nats[keeping].min() == axes.least(float(size), float(ceiling))
    assert np.isnan(axes.least(1.0, float(axes.ceilings[0])))
    same = replace(axes, taken=np.full(len(axes.nats), 3.0))
    assert same.ceilings.tolist() == [3.0]


def test_the_table_falls_to_the_right_and_downwards(axes: CostFront) -> None:
    text = printed(cost_front_table(axes))
    assert "a <board>" in text
    assert "s  " in text
    rows = [line.split() for line in text.splitlines() if line.strip() and line.split()[0].replace(".", "").replace(",", "").isdigit()]
    values = np.array([[np.inf if cell == "–" else float(cell) for cell in row[1:]] for row in rows])
    assert values.shape == (10, 5)
    assert (values[1:] <= values[:-1]).all()
    assert (values[:, 1:] <= values[:, :-1]).all()
    assert values[-1, -1] < values[-1, 0]


def test_candidates_tell_what_they_take(with_axes: RunSummary) -> None:
    text = printed(candidate_costs_table(with_axes))
    assert with_axes.cost_fronts[0].words(1.5e-10 * with_axes.chosen.size_bytes) in text
    read = replace(with_axes.cost_fronts[0], unit="bytes/token", of_candidates=np.full(len(with_axes.candidates), 12_340_000.0))
    assert "12.34 MB" in printed(candidate_costs_table(replace(with_axes, cost_fronts=(read,))))
    assert "►" in text


def test_the_page_draws_a_line_for_each_ceiling_and_stays_well_formed(with_axes: RunSummary) -> None:
    text = page(with_axes)
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    assert text.count('<polyline class="ceiling c') == 5
    assert "a &lt;board&gt;" in text
    assert text.count('class="within c') == len(with_axes.candidates)
    assert "ceiling c" not in page(replace(with_axes, cost_fronts=())).split("</style>")[1]


def test_other_programs_get_every_point(with_axes: RunSummary) -> None:
    assert '"cost": "seconds-per-token"' in front_json(with_axes)
    assert front_json(with_axes).count('"taken"') == len(with_axes.cost_fronts[0].nats)


def test_a_cost_is_known_for_every_candidate(summary: RunSummary, axes: CostFront) -> None:
    with pytest.raises(ValueError, match="every candidate"):
        replace(summary, cost_fronts=(replace(axes, of_candidates=np.zeros(1)),))
