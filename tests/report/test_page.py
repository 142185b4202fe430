import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bitwright.engines import LLAMA_CPP
from bitwright.errors import OutputError
from bitwright.report import RunSummary, write_page
from bitwright.report.charts.heat_maps import common_format
from bitwright.report.page import page
from bitwright.spaces import Tensor, Unit
from bitwright.written_files import RECORD

OUTWARD = re.compile(r"(src|href|srcset|action|data)\s*=\s*[\"']?\s*(https?:|//)|url\(|@import|<link|<img|<iframe|fetch\(|XMLHttp", re.IGNORECASE)
VOID = {"meta", "br", "wbr", "rect", "circle", "line", "polyline", "path"}


class Balance(HTMLParser):
    """Parser that compares every opened element with the one that closes it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_unit_is_there_with_its_format(summary: RunSummary) -> None:
    text = page(summary)
    for unit, form in zip(summary.space.units, summary.chosen_formats, strict=True):
        assert f">{unit.name}</th>" in text
        assert f'data-tip="{unit.name}\n' in text
        assert form.name in text


def test_it_is_well_formed(searched: RunSummary) -> None:
    balance = Balance()
    balance.feed(page(searched))
    assert balance.open == []


def test_it_asks_no_network_for_anything(searched: RunSummary) -> None:
    text = page(replace(searched, settings={"source": "https://example.org/model"}))
    assert not OUTWARD.search(text)
    assert "default-src 'none'" in text
    assert "https://example.org/model" in text  # text is text


def test_hostile_names_are_only_text(summary: RunSummary) -> None:
    hostile = "\"><script>alert(1)</script>{style}'&"
    unit = Unit(hostile, 0, hostile, (Tensor(hostile, (192, 576), "BF16"),))
    space = replace(summary.space, units=(*summary.space.units[:2], unit, *summary.space.units[3:]))
    candidates = tuple(replace(candidate, label=hostile) for candidate in summary.candidates)
    stages = tuple(replace(stage, name=hostile) for stage in summary.stages)
    text = page(replace(summary, model=hostile, target=hostile, space=space, candidates=candidates, stages=stages, settings={hostile: hostile}))
    assert text.count("<script>") == 1
    assert escape(hostile) in text
    assert "{style}" in text
    balance = Balance()
    balance.feed(text)


def test_the_parts_stand_in_their_order(searched: RunSummary) -> None:
    text = page(searched)
    marks = [
        "<h1>",
        'class="cards"',
        'class="chart"',
        'class="bits"',
        'class="heat"',
        "<details>",
        "All candidates",
        "History of the search",
        "auto, within",
        "nsga2, along",
        "Cost of the search",
        ">Settings<",
    ]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    assert text.count("<figcaption>") == text.count("<figure>") == 9


def test_a_run_without_a_search_has_no_section_of_it(summary: RunSummary) -> None:
    assert "History of the search" not in page(summary)


def test_error_bars_stand_at_measured_points_only(summary: RunSummary) -> None:
    measured = sum(candidate.measured is not None for candidate in summary.candidates)
    assert page(summary).count('class="error"') == measured < len(summary.candidates)


def test_the_common_format_is_near_four_bits_and_offered_everywhere(summary: RunSummary) -> None:
    form = common_format(summary)
    assert form.bits_per_weight == 4.5
    assert np.isfinite(summary.table[:, summary.space.formats.index(form)]).all()


def test_a_run_with_less_to_tell_has_a_page_too(summary: RunSummary) -> None:
    bare = replace(summary.chosen, measured=None, predicted_nats=0.0)
    nothing = np.zeros(0)
    text = page(
        replace(
            summary, budget=None, candidates=(bare,), stages=(), front_sizes_bytes=nothing.astype(np.int64), front_sums=nothing, front_nats=nothing
        )
    )
    assert "not measured" in text
    assert "There was no budget." in text
    assert 'class="budget" x1="' in text  # in the legend only
    assert "predicted" in text


def test_experts_and_ties_share_a_cell_or_a_row(summary: RunSummary) -> None:
    experts = tuple(Unit(f"blk.0.up.{i}", 0, "ffn_up_exps", (Tensor(f"e{i}", (512, 256), "BF16"),)) for i in range(4))
    tied = Unit("blk.1.qkv", 1, "attn_qkv", tuple(Tensor(f"blk.1.{kind}", (256, 256), "BF16") for kind in "qkv"))
    space = LLAMA_CPP.space((*experts, tied), menu=["Q8_0", "Q4_K", "Q2_K"], fixed_bytes=1000, n_weights=720_896)
    table = np.where(space.offered, 2.0 ** -np.array([form.bits_per_weight for form in space.formats]), np.nan)
    choice = space.uniform(LLAMA_CPP.format("Q4_K"))
    chosen = replace(summary.chosen, choice=choice, size_bytes=space.total_bytes(choice))
    text = page(replace(summary, space=space, table=table, candidates=(chosen,)))
    assert "256 × 256 (3 tensors)" in text
    assert "= blk.1.q, blk.1.k, blk.1.v" in text
    assert len(re.findall(r"<td>(?:<div[^>]*>[^<]*</div>){4}</td>", text)) == 2


def test_it_is_written_whole_over_an_older_one(searched: RunSummary, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(replace(searched, model="another"), path)
    write_page(searched, path)
    assert path.read_text(encoding="utf-8") == page(searched)
    assert sorted(found.name for found in tmp_path.iterdir()) == [RECORD, path.name]
    assert path.stat().st_size < 500_000


@pytest.mark.parametrize("where", ["file/report.html", "."])
def test_a_path_that_cannot_be_written_is_said_and_nothing_stays(summary: RunSummary, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(OutputError, match=r"choose another (path|name)"):
        write_page(summary, tmp_path / where)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_rename_that_fails_leaves_nothing(summary: RunSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="not permitted"):
        write_page(summary, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
