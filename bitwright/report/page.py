"""HTML report of a run in one file that needs no network: style, script and charts are inline, and its content policy forbids all requests."""

import re
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path

from bitwright.report.calibration_texts import HEADINGS as TEXTS
from bitwright.report.calibration_texts import kind_rows, routing_headings, routing_rows, text_cells, texts_in_words
from bitwright.report.charts.cost_chart import cost_chart
from bitwright.report.charts.front_chart import front_chart
from bitwright.report.charts.heat_maps import common_format, format_map, sensitivity_map
from bitwright.report.cost_front import CostFront
from bitwright.report.course_section import course_sections
from bitwright.report.headline import divergence, headline
from bitwright.report.numerals import duration, megabytes, percent, significant, size, unbroken
from bitwright.report.shipping import HEADINGS as SHIPPED
from bitwright.report.shipping import agreement, in_order
from bitwright.report.shipping import cells as shipped_cells
from bitwright.report.summary import Candidate, Quality, RunSummary
from bitwright.report.tables.cost_tables import cost_front_cells
from bitwright.report.tables.experts import HEADINGS, cells, rare_experts_caption
from bitwright.report.tables.tables import remainder
from bitwright.report.tables.unit_table import exchange, unit_table
from bitwright.written_files import publish_text

REPORT = "report"  # as the record of a folder calls it


def write_page(summary: RunSummary, path: Path) -> None:
    """Write the HTML report to `path`, whole or not at all.

    Raises:
        OutputError: the file cannot be written there, or what is there is no page of Bitwright's.
    """
    publish_text(path, page(summary), kind=REPORT)


def page(summary: RunSummary) -> str:
    """Return the HTML report as text."""
    words = headline(summary)
    sections = (
        _section("Size against divergence", _front(summary)),
        *(_section(f"Size, divergence and {escape(front.cost)}", _cost_front(summary, front)) for front in summary.cost_fronts),
        _section("Format and sensitivity of each tensor", _tensors(summary)),
        _section("Experts used by the calibration text", _experts(summary)),
        _section("Comparison of calibration texts", _texts(summary)),
        _section("All candidates", _candidates(summary)),
        _section("As shipped", _shipping(summary)),
        _section("History of the search", course_sections(summary.courses)),
        _section("Cost of the search", _stages(summary)),
        _section("Settings", _settings(summary)),
    )
    kicker = f'<p class="kicker">Bitwright report · {escape(summary.target)}</p>'
    head = f'{kicker}<h1>{unbroken(escape(words.result))}</h1><p class="lead">{unbroken(escape(words.comparison))}</p>'
    if summary.structure is not None and not summary.structure.won:
        head += f'<p class="lead">{unbroken(escape(summary.structure.sentence))}</p>'
    head += "".join(f'<p class="lead">{unbroken(escape(note.sentence))}</p>' for note in summary.steps)
    return _FRAME.format(
        title=escape(f"{summary.model} · Bitwright"),
        style=_resource("page.css"),
        script=_resource("page.js"),
        body=f"<header>{head}</header>{_cards(summary)}{''.join(sections)}",
    )


_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<div id="tip" role="tooltip" hidden></div>
<script>
{script}</script>
</body>
</html>
"""


def _resource(name: str) -> str:
    return files("bitwright.report").joinpath(name).read_text(encoding="utf-8")


def _section(heading: str, content: str) -> str:
    """Return a section, empty where it has no content."""
    return f"\n<section><h2>{heading}</h2>{content}</section>" if content else ""


def _figure(drawing: str, *, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def _cards(summary: RunSummary) -> str:
    chosen, original = summary.chosen, summary.original_bytes
    quality = chosen.measured
    nats = re.sub(r"± \S+", r"<span>\g<0></span>", divergence(chosen))
    cards = [
        ("size", size(chosen.size_bytes), f"{percent(chosen.size_bytes / original)} of the original's {size(original)}"),
        ("bits per weight", f"{chosen.bits_per_weight:.2f}", f"original {8 * original / summary.n_weights:.2f}; everything in the file counted"),
        ("KL divergence", nats, f"nats/token, {'measured' if isinstance(quality, Quality) else 'predicted'}; 0 is the original itself"),
    ]
    if isinstance(quality, Quality):
        cards.append(("perplexity", significant(quality.perplexity, 4), f"original {significant(summary.reference_perplexity, 4)}; lower is better"))
        note = f"of {quality.n_tokens:,} tokens: same most likely next token as the original"
        cards.append(("same top token", percent(quality.top1_agreement), note))
    else:
        cards.append(("perplexity", "not measured", f"original {significant(summary.reference_perplexity, 4)}"))
        cards.append(("same top token", "not measured", "share of tokens with the original's most likely next token"))
    return f'<ul class="cards">{"".join(f"<li><h3>{name}</h3><p>{value}</p><small>{note}</small></li>" for name, value, note in cards)}</ul>'


def _front(summary: RunSummary) -> str:
    caption = (
        "Lower is closer to the original and further left is a smaller file; bars, often smaller than their mark, are one standard error, "
        "and pointing at a mark or tapping it shows its numbers."
    )
    return _figure(front_chart(summary), caption=caption)


def _cost_front(summary: RunSummary, front: CostFront) -> str:
    device = f", on {escape(front.device)}" if front.device else ""
    caption = (
        f"Each line is the predicted front within a ceiling on {escape(front.cost)} ({front.unit}{device}); a mark has the colour of the lowest "
        "ceiling that it satisfies, and is drawn at its measured divergence where there is one."
    )
    headings, rows = cost_front_cells(front)
    table = _table((headings[0], *(f"≤ {ceiling}" for ceiling in headings[1:])), [("", row) for row in rows])
    return (
        _figure(cost_chart(summary, front), caption=caption)
        + f"<details><summary>Least nats/token for each size and ceiling</summary>{table}</details>"
    )


def _tensors(summary: RunSummary) -> str:
    form = common_format(summary)
    formats = _figure(
        f"<h3>Formats of the chosen plan</h3>{format_map(summary)}",
        caption="Each cell is a tensor, a row is a layer from the first to the last; the deeper the colour, the more bits per weight.",
    )
    weights = _figure(
        f"<h3>Sensitivity of each tensor in {form.name}</h3>{sensitivity_map(summary)}",
        caption=f"The predicted divergence when this tensor alone is stored in {form.name}: those that stand out are worth more bits. "
        "Point at a cell or tap it for its sizes and divergences in all formats.",
    )
    explained = (
        "<p>The price to shrink is the divergence added per MB saved by the cheapest smaller format; the price to grow is the divergence removed per "
        f"MB by the best larger one. A plan is optimal when no price to shrink is below a price to grow. {exchange(summary)} "
        "Click a heading to sort.</p>"
    )
    details = f"<summary>Every tensor with its alternatives ({len(summary.space.units):,} rows)</summary>{explained}"
    return f'<div class="pair">{formats}{weights}</div><details>{details}<div class="scroll">{unit_table(summary)}</div></details>'


def _experts(summary: RunSummary) -> str:
    if not summary.experts:
        return ""
    table = _table(HEADINGS, [(" muted" if use.is_rare else "", cells(use)) for use in summary.experts])
    return f"<p>{escape(rare_experts_caption(summary.experts))}</p><details><summary>All {len(summary.experts):,} experts</summary>{table}</details>"


def _texts(summary: RunSummary) -> str:
    texts = summary.texts
    if texts is None:
        return ""
    shown = _figure(_table(TEXTS, [("", text_cells(text, texts)) for text in texts.texts]), caption=unbroken(escape(texts_in_words(texts))))
    names = tuple(escape(name) for name, _ in texts.priced)
    if len(names) > 1:
        differing = texts.differing
        shown += _figure(_table(("kind", *names), [("", row) for row in kind_rows(texts)]), caption="Bits per weight, scales included.")
        every = _table(("tensor", *names), [("", row) for row in differing])
        shown += f"<details><summary>{len(differing):,} units that some text alone would give another format</summary>{every}</details>"
    if texts.experts:
        headings = tuple(escape(heading) for heading in routing_headings(texts))
        routing = _table(headings, [("", row) for row in routing_rows(texts)])
        shown += f"<details><summary>How often each of {len(texts.experts):,} experts is chosen</summary>{routing}</details>"
    return shown


def _candidates(summary: RunSummary) -> str:
    headings = (
        "candidate",
        "kind",
        "MB",
        "bits/weight",
        "sum of prices",
        "predicted nats/token",
        "measured nats/token",
        "perplexity",
        "same top token",
    )
    ordered = sorted(summary.candidates, key=lambda candidate: candidate.size_bytes)
    rows = [(" chosen" if candidate.chosen else "", _candidate_cells(candidate)) for candidate in ordered]
    original = ("original", "", megabytes(summary.original_bytes), f"{8 * summary.original_bytes / summary.n_weights:.2f}", "0", "0", "0")
    rows.append((" muted", (*original, significant(summary.reference_perplexity, 4), percent(1.0))))
    caption = (
        "Sorted by size; a dash means predicted but not measured. The sum of prices is in the units of the sensitivity table, and the prediction is "
        f"what the measured plans make of it. {unbroken(escape(remainder(summary)))}"
    )
    return _figure(_table(headings, rows), caption=caption)


def _candidate_cells(candidate: Candidate) -> tuple[str, ...]:
    quality = candidate.measured
    label = f"► {candidate.label}" if candidate.chosen else candidate.label
    numbers = (f"{candidate.bits_per_weight:.2f}", significant(candidate.summed), significant(candidate.predicted_nats))
    known = (label, candidate.kind, megabytes(candidate.size_bytes), *numbers)
    if not isinstance(quality, Quality):
        return (*known, "–", "–", "–")
    return (*known, divergence(candidate), significant(quality.perplexity, 4), percent(quality.top1_agreement))


def _shipping(summary: RunSummary) -> str:
    if summary.shipping is None:
        return ""
    rows = [(" chosen" if candidate.chosen else "", shipped_cells(candidate)) for candidate in in_order(summary.shipping)]
    return _figure(_table(SHIPPED, rows), caption=unbroken(escape(agreement(summary.shipping))))


def _stages(summary: RunSummary) -> str:
    rows = [("", (stage.name, duration(stage.seconds), f"{stage.n_tokens:,}", size(stage.peak_memory_bytes))) for stage in summary.stages]
    total = duration(sum(stage.seconds for stage in summary.stages))
    peak = max((stage.peak_memory_bytes for stage in summary.stages), default=0)
    rows.append((" chosen", ("total", total, f"{sum(stage.n_tokens for stage in summary.stages):,}", size(peak))))
    return _figure(
        _table(("step", "time", "tokens", "peak memory"), rows),
        caption="Tokens are those that the model was run on in that step; memory is the peak of the process.",
    )


def _settings(summary: RunSummary) -> str:
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in summary.settings.items())
    return _figure(f'<dl class="settings">{pairs}</dl>', caption="The same settings and files give the same plan again.")


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(
        f'<tr class="{look.strip()}"><th scope="row">{escape(cells[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells[1:])}</tr>'
        for look, cells in rows
    )
    return f'<div class="scroll"><table class="list"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
