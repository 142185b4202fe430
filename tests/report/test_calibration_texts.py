"""Comparison of several calibration texts."""

from dataclasses import replace
from io import StringIO

from rich.console import Console
from rich.table import Table

from bitwright.report import Allocation, CalibrationText, RunSummary, TextAllocation, TextComparison
from bitwright.report.calibration_texts import kinds_table, routing_table, texts_table
from bitwright.report.page import page

TOGETHER = Allocation(("INT2", "INT4", "INT4"), (2.5, 4.25))
OTHER = Allocation(("INT4", "INT2", "INT4"), (4.5, 3.25))
PROSE = CalibrationText("prose.txt", 1_200, TextAllocation(OTHER, 0.91, 1.25), TextAllocation(TOGETHER, 0.987, 1.0), (0.25, 0.75), 0.5)
CODE = CalibrationText("<code>.py", 300, TextAllocation(TOGETHER, 0.99, 1.0), TextAllocation(OTHER, 0.97, 1.02), (0.5, 0.5), 1.0)
TEXTS = TextComparison(("a", "b", "c"), ("attn_q", "blk.0, experts"), ("blk.0.expert.0", "blk.0.expert.1"), (0.3, 0.7), TOGETHER, (PROSE, CODE))
UNPRICED = replace(TEXTS, experts=(), frequencies=(), texts=(replace(PROSE, alone=None, by_chance=None, frequencies=()),))


def printed(table: Table) -> str:
    out = StringIO()
    Console(file=out, width=140).print(table)
    return out.getvalue()


def test_each_text_beside_chance() -> None:
    text = printed(texts_table(TEXTS))
    assert "2 (0) of 3" in text
    assert "0 (2) of 3" in text
    assert "0.910 (0.987)" in text
    assert "× 1.250 (1.000)" in text
    assert "1,200" in text
    assert TEXTS.differing == [("a", "INT2", "INT4", "INT2"), ("b", "INT4", "INT2", "INT4")]


def test_bits_and_routing_by_text() -> None:
    assert "4.25" in printed(kinds_table(TEXTS))
    assert "3.25" in printed(kinds_table(TEXTS))
    text = printed(routing_table(TEXTS))
    assert "prose.txt" in text
    assert "75.0 %" in text
    assert "30.0 %" in text


def test_a_text_without_prices_says_why() -> None:
    text = printed(texts_table(UNPRICED))
    assert "stores nothing per sequence" in text
    assert "–" in text
    assert UNPRICED.differing == []


def test_the_section_is_there_where_there_are_several(summary: RunSummary) -> None:
    heading = "Comparison of calibration texts"
    assert heading not in page(summary)
    shown = page(replace(summary, texts=TEXTS))
    assert heading in shown
    assert "2 units that some text alone would give another format" in shown
    assert "How often each of 2 experts is chosen" in shown
    assert "&lt;code&gt;.py" in shown
    assert "<code>.py" not in shown
    without = page(replace(summary, texts=UNPRICED))
    assert heading in without
    assert "another format" not in without
