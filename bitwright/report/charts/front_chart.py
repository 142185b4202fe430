"""Chart of the Pareto front: size against divergence, with the budget and every candidate."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np

from bitwright.report.charts.axes import Linear, Logarithmic, Window
from bitwright.report.limits import SizeLimit
from bitwright.report.numerals import megabytes, percent, significant, size, with_error
from bitwright.report.predicted_front import PredictedFront
from bitwright.report.summary import Candidate, Quality, RunSummary

_HEIGHT = 400
_MARGIN = 0.08  # of the range, on the left and right
_LINE_PX, _LETTER_PX = 16, 7.5  # of a label
_WIDTHS_PX = {"": 300, "wide ": 900}  # a label that collides on a phone is shown on wide screens only


def front_chart(summary: RunSummary) -> str:
    """Return the legend and the chart as HTML."""
    window = _window(summary)
    ordered = sorted(summary.candidates, key=lambda candidate: candidate.chosen)  # the chosen one is drawn last, on top
    marks = "".join(_mark(candidate, window) for candidate in ordered)
    grid = window.grid(across="size of the file, MB", up="divergence, nats/token (log scale)")
    content = grid + _lines(summary, window) + _budget(summary, window) + marks + "".join(_labels(summary, window))
    return _legend(summary) + window.drawing(content, title=f"Predicted front and measured candidates of {summary.model}")


def _legend(summary: RunSummary) -> str:
    """Return the legend, with the front within bits where it is drawn."""
    return _LEGEND.format(within_bits="" if summary.within_bits is None else _WITHIN_BITS)


_WITHIN_BITS = """
<li><svg width="26" height="12"><line class="predicted bits" x1="1" y1="6" x2="25" y2="6"/></svg>predicted front of bits alone</li>"""
_LEGEND = """<ul class="legend">
<li><svg width="26" height="12"><line class="predicted" x1="1" y1="6" x2="25" y2="6"/></svg>predicted front</li>{within_bits}
<li><svg width="14" height="14"><circle class="plan chosen" cx="7" cy="7" r="6"/></svg>chosen plan</li>
<li><svg width="12" height="12"><circle class="plan" cx="6" cy="6" r="4.5"/></svg>other plan, measured</li>
<li><svg width="12" height="12"><circle class="unmeasured" cx="6" cy="6" r="4"/></svg>plan, predicted only</li>
<li><svg width="12" height="12"><rect class="uniform" x="1.5" y="1.5" width="9" height="9"/></svg>one format for all tensors</li>
<li><svg width="26" height="12"><line class="budget" x1="1" y1="6" x2="25" y2="6"/></svg>budget</li>
</ul>"""


def _window(summary: RunSummary) -> Window:
    """Return the window: megabytes from left to right, divergence from bottom to top; values that are not positive lie on the bottom line."""
    sizes = [candidate.size_bytes / 1e6 for candidate in summary.candidates]
    sizes += [summary.budget.size_bytes / 1e6] if isinstance(summary.budget, SizeLimit) else []
    margin = _MARGIN * max(max(sizes) - min(sizes), 0.2 * max(sizes))
    left, right = min(sizes) - margin, max(sizes) + margin
    shown = (summary.front_sizes_bytes >= 1e6 * left) & (summary.front_sizes_bytes <= 1e6 * right)
    nats = [*summary.front_nats[shown], *(candidate.nats_per_token for candidate in summary.candidates)]
    positive = [value for value in nats if value > 0] or [1.0]
    return Window(Linear(left, right), Logarithmic(min(positive) / 1.5, max(positive) * 1.5), _HEIGHT)


def _lines(summary: RunSummary, window: Window) -> str:
    """Return the lines of the predicted front, and of that within bits where there are other formats."""
    whole, bits = PredictedFront(summary.front_sizes_bytes, summary.front_nats), summary.within_bits
    return ("" if bits is None else _line(bits, window, look="predicted bits")) + _line(whole, window, look="predicted")


def _line(front: PredictedFront, window: Window, *, look: str) -> str:
    """Return the line of a front, clipped to the window."""
    ends, known = window.across, front.nats > 0
    sizes, logs = front.sizes_bytes[known] / 1e6, np.log(front.nats[known])
    if not sizes.size or sizes[-1] < ends.low or sizes[0] > ends.high:
        return ""
    inside = (sizes > ends.low) & (sizes < ends.high)
    edges = np.clip([ends.low, ends.high], sizes[0], sizes[-1])
    at = np.concatenate([edges[:1], sizes[inside], edges[1:]])
    heights = np.concatenate([np.interp(edges[:1], sizes, logs), logs[inside], np.interp(edges[1:], sizes, logs)])
    return window.line([(window.x(mb), window.y(nats)) for mb, nats in zip(at, np.exp(heights), strict=True)], look=look)


def _budget(summary: RunSummary, window: Window) -> str:
    if not isinstance(summary.budget, SizeLimit):
        return ""
    x = window.x(summary.budget.size_bytes / 1e6)
    anchor, shift = ("end", -6) if x > 60 else ("start", 6)
    label = f'<text class="note" x="{x:.2f}%" dx="{shift}" y="12" text-anchor="{anchor}">budget {size(summary.budget.size_bytes)}</text>'
    return f'<line class="budget" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="{_HEIGHT}"/>{label}'


def _mark(candidate: Candidate, window: Window) -> str:
    x, y = window.x(candidate.size_bytes / 1e6), window.y(candidate.nats_per_token)
    bar = ""
    if isinstance(candidate.measured, Quality):
        mean, error = candidate.measured.nats_per_token, candidate.measured.standard_error
        bar = f'<line class="error" x1="{x:.2f}%" x2="{x:.2f}%" y1="{window.y(mean - error):.1f}" y2="{window.y(mean + error):.1f}"/>'
    known = "" if isinstance(candidate.measured, Quality) else " unmeasured"
    if candidate.kind == "uniform":
        symbol = f'<rect class="uniform{known}" x="{x:.2f}%" y="{y:.1f}" width="9" height="9" transform="translate(-4.5 -4.5)"/>'
    elif candidate.chosen:
        symbol = f'<circle class="plan chosen{known}" cx="{x:.2f}%" cy="{y:.1f}" r="7"/>'
    else:
        symbol = f'<circle class="plan{known}" cx="{x:.2f}%" cy="{y:.1f}" r="4.5"/>'
    return f'<g data-tip="{escape(_tip(candidate))}" tabindex="0">{bar}{symbol}</g>'


def _tip(candidate: Candidate) -> str:
    lines = [candidate.label, f"{megabytes(candidate.size_bytes)} MB · {candidate.bits_per_weight:.2f} bits/weight"]
    lines.append(f"predicted {significant(candidate.predicted_nats)} nats/token")
    if isinstance(candidate.measured, Quality):
        quality = candidate.measured
        lines.append(f"measured {with_error(quality.nats_per_token, quality.standard_error)} nats/token")
        lines.append(f"perplexity {significant(quality.perplexity, 4)} · same top token {percent(quality.top1_agreement)}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Label:
    """Label at `x` percent and `y` pixels that runs to the left (`end`) or right (`start`) of there."""

    text: str
    x: float
    y: float
    anchor: Literal["start", "end"]

    def collides(self, other: "_Label", *, width_px: float) -> bool:
        """Return whether the two overlap on a drawing of that width."""
        (start, stop), (other_start, other_stop) = self._span(width_px), other._span(width_px)
        return start < other_stop and other_start < stop and abs(self.y - other.y) < _LINE_PX

    def _span(self, width_px: float) -> tuple[float, float]:
        at, length = self.x / 100 * width_px, _LETTER_PX * (len(self.text) + 2)
        return (at, at + length) if self.anchor == "start" else (at - length, at)


def _labels(summary: RunSummary, window: Window) -> Iterable[str]:
    """Yield labels for the chosen plan and the uniform formats, each only where it overlaps no earlier one."""
    placed: dict[str, list[_Label]] = {screen: [] for screen in _WIDTHS_PX}
    for candidate in sorted(summary.candidates, key=lambda candidate: not candidate.chosen):
        if not candidate.chosen and candidate.kind != "uniform":
            continue
        label = _label(candidate, window)
        free = [screen for screen, width in _WIDTHS_PX.items() if not any(label.collides(other, width_px=width) for other in placed[screen])]
        for screen in free:
            placed[screen].append(label)
        if free:
            look = f"{free[0]}note{' chosen' if candidate.chosen else ''}"
            shift = 9 if label.anchor == "start" else -9
            at = f'x="{label.x:.2f}%" dx="{shift}" y="{label.y:.1f}" text-anchor="{label.anchor}"'
            yield f'<text class="{look}" {at}>{escape(label.text)}</text>'


def _label(candidate: Candidate, window: Window) -> _Label:
    """Return a candidate's label: below and left for the chosen plan, above and right for the others, where the front leaves room."""
    x, y = window.x(candidate.size_bytes / 1e6), window.y(candidate.nats_per_token)
    if candidate.chosen:
        return _Label(candidate.label, x, y + 20, "end" if x > 15 else "start")
    return _Label(candidate.label, x, y - 5, "start" if x < 88 else "end")
