from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from bitwright.report import Forecast, RunSummary, SearchHistory, SizeLimit
from bitwright.report.tables.tables import candidates_table, format_histogram, front_table, searches_table, stages_table


def drawn(table: Table) -> str:
    out = StringIO()
    Console(file=out, width=80).print(table)
    return out.getvalue()


@pytest.mark.parametrize("table", [candidates_table, front_table, stages_table, format_histogram, searches_table])
def test_it_fits_eighty_columns_with_every_number_whole(searched: RunSummary, table: Callable[[RunSummary], Table]) -> None:
    text = drawn(table(searched))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    cells = [cell for column in table(searched).columns[1:] for cell in column.cells]
    assert all(part in text for cell in cells for part in str(cell).splitlines())


def test_candidates_stand_by_size_with_the_chosen_one_marked(summary: RunSummary) -> None:
    text = drawn(candidates_table(summary))
    assert "► plan" in text
    assert text.index("Q4_0") < text.index("► plan") < text.index("Q8_0")
    assert "0.0365 ± 0.0013" in text
    assert "193,184 bytes (0.2 %) of the budget of 90.00 MB stay unused" in text


def test_the_caption_tells_of_no_budget_and_of_a_broken_one(summary: RunSummary) -> None:
    assert "There was no budget." in drawn(candidates_table(replace(summary, budget=None)))
    assert "bytes ABOVE" in drawn(candidates_table(replace(summary, budget=SizeLimit(80_000_000))))


def test_the_front_has_at_most_twenty_rows_from_end_to_end(summary: RunSummary) -> None:
    table = front_table(summary)
    assert 10 <= table.row_count <= 20
    text = drawn(table)
    assert "67.80" in text
    assert "270.86" in text


def test_an_empty_front_is_an_empty_table(summary: RunSummary) -> None:
    assert front_table(replace(summary, front_sizes_bytes=np.zeros(0, dtype=np.int64), front_sums=np.zeros(0), front_nats=np.zeros(0))).row_count == 0


def test_the_histogram_counts_every_tensor_once(summary: RunSummary) -> None:
    tensors = [int(str(cell)) for cell in list(format_histogram(summary).columns[2].cells)]
    assert sum(tensors) == 211


def test_stages_add_up(summary: RunSummary) -> None:
    text = drawn(stages_table(summary))
    assert "16 min 58 s" in text
    assert "3,342,336" in text


def test_a_search_takes_two_lines(searched: RunSummary) -> None:
    lines = drawn(searches_table(searched)).splitlines()
    rows = [line.split() for line in lines[4:8]]
    assert rows[0] == ["auto", "60", "3,080,192", "0.0584", "70.0", "%", "0.987", "0.0312"]
    assert rows[1] == ["90.00", "MB", "10", "min", "47", "s", "0.0355", "99.4", "%", "0.914", "88.3", "%"]
    assert rows[2] == ["nsga2", "45", "1,474,560", "–", "61.9", "%", "–", "–"]
    assert rows[3] == ["whole", "front", "5", "min", "10", "s", "–", "99.8", "%", "–", "–"]


def test_a_long_search_and_one_of_nothing_fit_too(searched: RunSummary, within: SearchHistory) -> None:
    assert isinstance(within.forecast, Forecast)
    vague = replace(within.forecast, validation=replace(within.forecast.validation, kendall=float("nan")))
    last = replace(within.steps[-1], tokens=1_234_567_890_123, seconds=40_000.0)
    long = replace(within, method="a method of a very long name", steps=(*within.steps[:-1], last), forecast=vague)
    nothing = replace(within, steps=(), hypervolume=np.zeros(0), incumbent=np.zeros(0))
    late = replace(within, incumbent=np.append(np.inf, within.incumbent[1:]))
    text = drawn(searches_table(replace(searched, courses=(long, nothing, late))))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "1,234,567,890,123" in text
    assert "nan" not in text
    assert "inf" not in text
    assert "–" not in drawn(searches_table(replace(searched, courses=(late,))))  # it begins at the first file that fits
    assert searches_table(replace(searched, courses=())).row_count == 0
