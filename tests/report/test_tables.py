import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from bitwright.report import NoLimit, RunSummary, SizeLimit, candidates_table, format_histogram, front_json, front_table, stages_table


def drawn(table: Table) -> str:
    out = StringIO()
    Console(file=out, width=80).print(table)
    return out.getvalue()


@pytest.mark.parametrize("table", [candidates_table, front_table, stages_table, format_histogram])
def test_it_fits_eighty_columns_with_every_number_whole(summary: RunSummary, table: Callable[[RunSummary], Table]) -> None:
    text = drawn(table(summary))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    cells = [cell for column in table(summary).columns[1:] for cell in column.cells]
    assert all(str(cell) in text for cell in cells)


def test_candidates_stand_by_size_with_the_chosen_one_marked(summary: RunSummary) -> None:
    text = drawn(candidates_table(summary))
    assert "► plan" in text
    assert text.index("Q4_0") < text.index("► plan") < text.index("Q8_0")
    assert "0.0365 ± 0.0013" in text
    assert "193,184 bytes (0.2 %) of the budget of 90.00 MB stay unused" in text


def test_the_caption_tells_of_no_budget_and_of_a_broken_one(summary: RunSummary) -> None:
    assert "There was no budget." in drawn(candidates_table(replace(summary, budget=NoLimit())))
    assert "bytes ABOVE" in drawn(candidates_table(replace(summary, budget=SizeLimit(80_000_000))))


def test_the_front_has_at_most_twenty_rows_from_end_to_end(summary: RunSummary) -> None:
    table = front_table(summary)
    assert 10 <= table.row_count <= 20
    text = drawn(table)
    assert "67.80" in text
    assert "270.86" in text


def test_an_empty_front_is_an_empty_table(summary: RunSummary) -> None:
    assert front_table(replace(summary, front_sizes_bytes=np.zeros(0, dtype=np.int64), front_nats=np.zeros(0))).row_count == 0


def test_the_histogram_counts_every_tensor_once(summary: RunSummary) -> None:
    tensors = [int(str(cell)) for cell in list(format_histogram(summary).columns[2].cells)]
    assert sum(tensors) == 211


def test_stages_add_up(summary: RunSummary) -> None:
    text = drawn(stages_table(summary))
    assert "16 min 58 s" in text
    assert "3,342,336" in text


def test_the_front_is_json(summary: RunSummary) -> None:
    record = json.loads(front_json(summary))
    assert len(record["front"]) == 160
    assert record["budget_bytes"] == 90_000_000
    assert [candidate["label"] for candidate in record["candidates"] if candidate["chosen"]] == ["plan"]
    assert {"measured" in candidate for candidate in record["candidates"]} == {True, False}
    assert "budget_bytes" not in json.loads(front_json(replace(summary, budget=NoLimit())))
