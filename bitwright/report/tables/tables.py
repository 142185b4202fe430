"""Tables of a finished run for a terminal of 80 columns."""

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bitwright.report.limits import SizeLimit
from bitwright.report.numerals import duration, megabytes, percent, significant, size, with_error
from bitwright.report.search_history import Forecast, SearchHistory
from bitwright.report.summary import Candidate, Quality, RunSummary
from bitwright.report.tables.tabular import titled
from bitwright.spaces import Format

_FRONT_ROWS = 20
_BAR_CELLS = 20
_COURSES = (
    "divergence: the best within the goal, nats/token on the search text. front: hypervolume, as a share of the best known front's. "
    "Spearman, Kendall, RMSE (nats/token) and the share in the 90 % interval: predictions against measurements that they were not fitted to."
)
_TOP1 = "same top-1: tokens where this model and the original have the same most likely next token."


def candidates_table(summary: RunSummary) -> Table:
    """Return a table of the candidates by size: predicted and measured divergence, perplexity, and which one was chosen."""
    table = titled("Candidates", caption=f"{remainder(summary)}\n{_linked(summary.chosen)}\n{_TOP1}")
    table.add_column("", overflow="fold")
    for heading in ("size\nMB", "bits/\nweight", "predicted\nnats/token", "measured\nnats/token", "perplex-\nity", "same\ntop-1"):
        table.add_column(heading, justify="right", no_wrap=True)
    for candidate in sorted(summary.candidates, key=lambda candidate: candidate.size_bytes):
        style = "bold green" if candidate.chosen else ""
        table.add_row(f"{'►' if candidate.chosen else ' '} {candidate.label}", *_figures(candidate), style=style)
    return table


def _linked(chosen: Candidate) -> str:
    return f"predicted: what the measured plans of the front make of the sum of prices in the sensitivity table, {significant(chosen.summed)} for ►."


def remainder(summary: RunSummary) -> str:
    """Return a sentence on the bytes of the budget that the chosen file leaves unused."""
    chosen = summary.chosen
    if summary.budget is None:
        return f"► chosen: {chosen.label}. There was no budget."
    left = summary.budget.size_bytes - chosen.size_bytes
    of_budget = f"of the budget of {size(summary.budget.size_bytes)}"
    if left < 0:
        return f"► chosen: {chosen.label}, {-left:,} bytes ABOVE the limit {of_budget}."
    return f"► chosen: {chosen.label}; {left:,} bytes ({percent(left / summary.budget.size_bytes)}) {of_budget} stay unused."


def _within_bits(summary: RunSummary, size_bytes: int) -> tuple[str, ...]:
    """Return the cell of the front within bits alone, where there are other formats."""
    if summary.within_bits is None:
        return ()
    nats = summary.within_bits.within(size_bytes)
    return ("" if nats is None else significant(nats),)


def front_table(summary: RunSummary) -> Table:
    """Return a table of the predicted front in at most twenty rows: the least divergence by size, and the gain of a further MB."""
    sizes, nats = summary.front_sizes_bytes, summary.front_nats
    spread = np.geomspace(sizes[0], sizes[-1], _FRONT_ROWS) if len(sizes) else np.zeros(0)
    rows = np.unique(np.abs(sizes[None, :] - spread[:, None]).argmin(axis=1)) if len(sizes) else np.zeros(0, dtype=np.int64)
    limit = summary.budget.size_bytes if isinstance(summary.budget, SizeLimit) else np.inf
    measured = {other.size_bytes: other.measured for other in summary.candidates if isinstance(other.measured, Quality) and other.kind != "uniform"}
    table = titled("Size against divergence", caption=f"{len(rows)} of {len(sizes)} points of the predicted front. ◄ fits the budget.")
    for heading in (
        "size\nMB",
        "bits per\nweight",
        "sum of\nprices",
        "predicted\nnats/token",
        *(("bits alone\nnats/token",) if summary.within_bits else ()),
        "a further MB brings\nnats/token",
        "measured\nnats/token",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for row, following in zip(rows, [*rows[1:], *rows[-1:]], strict=True):
        here = measured.get(int(sizes[row]))
        step = (sizes[following] - sizes[row]) / 1e6
        table.add_row(
            megabytes(sizes[row]),
            f"{8 * sizes[row] / summary.n_weights:.2f}",
            significant(summary.front_sums[row]),
            significant(nats[row]),
            *_within_bits(summary, int(sizes[row])),
            significant((nats[row] - nats[following]) / step) if step else "",
            with_error(here.nats_per_token, here.standard_error) if here else "",
            "◄" if sizes[row] <= limit < np.inf else "",
        )
    return table


def stages_table(summary: RunSummary) -> Table:
    """Return a table of the time, tokens and memory of each step of the run."""
    table = titled("Cost of the search", caption="Memory is the peak of the process.")
    table.add_column("step", overflow="fold")
    for heading in ("time", "tokens", "peak memory\nGB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in summary.stages:
        table.add_row(stage.name, duration(stage.seconds), f"{stage.n_tokens:,}", f"{stage.peak_memory_bytes / 1e9:.2f}")
    table.add_section()
    tokens = sum(stage.n_tokens for stage in summary.stages)
    peak = max((stage.peak_memory_bytes for stage in summary.stages), default=0)
    table.add_row("total", duration(sum(stage.seconds for stage in summary.stages)), f"{tokens:,}", f"{peak / 1e9:.2f}", style="bold")
    return table


def searches_table(summary: RunSummary) -> Table:
    """Return a table of every search in two lines: goal, cost, result, and the validation of its predictor."""
    table = titled("History of the search", caption=_COURSES)
    table.add_column("method\ngoal", overflow="fold")
    for heading in ("evalu-\nations", "tokens\ntime", "divergence\nfirst, last", "front\nfirst, last", "Spearman\nKendall", "RMSE\nin 90 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for course in summary.courses:
        spent = f"{course.tokens:,}\n{duration(course.seconds)}"
        goal = size(course.goal.size_bytes) if isinstance(course.goal, SizeLimit) else "whole front"
        table.add_row(f"{course.method}\n{goal}", f"{len(course.steps):,}", spent, *_progress(course), *_foresight(course.forecast))
    return table


def _progress(course: SearchHistory) -> tuple[str, str]:
    """Return first and last: the best divergence (for a budget only), and the hypervolume as a share of the best known front's."""
    first, last = _ends(course.incumbent[np.isfinite(course.incumbent)])
    divergence = f"{significant(first)}\n{significant(last)}" if isinstance(course.goal, SizeLimit) else "–\n–"
    return divergence, "\n".join(percent(share) if np.isfinite(share) else "–" for share in _ends(course.hypervolume))


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    return (float(values[0]), float(values[-1])) if len(values) else (np.nan, np.nan)


def _foresight(forecast: Forecast | None) -> tuple[str, str]:
    if forecast is None:
        return "–\n–", "–\n–"
    known = forecast.validation
    return f"{significant(known.spearman)}\n{significant(known.kendall)}", f"{significant(known.rmse_nats)}\n{percent(known.coverage)}"


def check_table(rows: tuple[tuple[str, str, str], ...]) -> Table:
    """Return a table of (quantity, value promised by the plan, value found in the engine)."""
    table = titled("Promised and found", caption="Divergences are in nats/token, with a standard error over contexts.")
    for heading in ("", "promised", "found"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def format_histogram(summary: RunSummary) -> Table:
    """Return a table of the formats of the chosen plan: number of tensors, and share of the quantized weights."""
    total = sum(unit.n_weights for unit in summary.space.units)
    table = titled(f"Formats of {summary.chosen.label}", caption="Shares of all weights that were searched over.")
    table.add_column("format")
    for heading in ("bits per\nweight", "tensors", "weights\nmillions", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for form, n_tensors, n_weights in format_counts(summary):
        share = n_weights / total
        bar = "█" * max(1, round(_BAR_CELLS * share))
        table.add_row(form.name, f"{form.bits_per_weight:.3g}", f"{n_tensors:,}", f"{n_weights / 1e6:,.2f}", percent(share), bar)
    return table


def format_counts(summary: RunSummary) -> list[tuple[Format, int, int]]:
    """Return (format, number of tensors, number of weights) for each format of the chosen plan, finest first."""
    counts: dict[Format, tuple[int, int]] = {}
    for unit, form in zip(summary.space.units, summary.chosen_formats, strict=True):
        n_tensors, n_weights = counts.get(form, (0, 0))
        counts[form] = (n_tensors + len(unit.tensors), n_weights + unit.n_weights)
    finest_first = sorted(counts, key=lambda form: (-form.bits_per_weight, summary.space.formats.index(form)))
    return [(form, *counts[form]) for form in finest_first]


def _figures(candidate: Candidate) -> tuple[str, ...]:
    quality = candidate.measured
    known = (megabytes(candidate.size_bytes), f"{candidate.bits_per_weight:.2f}", significant(candidate.predicted_nats))
    if not isinstance(quality, Quality):
        return (*known, "–", "–", "–")
    divergence = with_error(quality.nats_per_token, quality.standard_error)
    return (*known, divergence, significant(quality.perplexity, 4), percent(quality.top1_agreement))
