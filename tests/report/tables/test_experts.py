"""Table and caption of the experts of a mixture."""

from dataclasses import replace
from io import StringIO

from rich.console import Console

from bitwright.report import ExpertUse, RunSummary
from bitwright.report.page import page
from bitwright.report.tables.experts import experts_table, never_routed_to

USES = (
    ExpertUse("blk.0.expert.0", 2_000, 0.5, 0.61, ("INT4_G32",), 32, is_rare=False),
    ExpertUse("blk.0.expert.1", 3, 0.00075, 0.4, ("INT2_G32", "INT3_G32"), 32, is_rare=True),
)


def printed(uses: tuple[ExpertUse, ...]) -> str:
    out = StringIO()
    Console(file=out, width=110).print(experts_table(uses))
    return out.getvalue()


def test_the_table() -> None:
    text = printed(USES)
    assert "2,000" in text
    assert "50.0 %" in text
    assert "INT2_G32, INT3_G32" in text
    assert "1 of 2 experts saw fewer than 32 tokens" in text
    assert "blk.0.expert.1 (3)" in text
    assert "Every expert saw 32 tokens" in printed(USES[:1])
    assert "no routed experts" in printed(())


def test_the_section_is_there_where_there_are_experts(summary: RunSummary) -> None:
    heading = "Experts used by the calibration text"
    assert heading not in page(summary)
    shown = page(replace(summary, experts=USES))
    assert heading in shown
    assert "All 2 experts" in shown
    assert "INT2_G32, INT3_G32" in shown


def test_experts_that_no_token_reached_are_named() -> None:
    assert never_routed_to(USES) == ""
    unseen = tuple(replace(USES[1], name=f"blk.0.expert.{i}", n_tokens=0) for i in range(8))
    told = never_routed_to((*USES, *unseen))
    assert told.startswith("8 of 10 experts were never routed to")
    assert "blk.0.expert.5 and 2 more" in told
