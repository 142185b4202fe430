"""The front as a drawing: bytes against divergence, with the budget and every candidate.

Inline SVG without a library. Positions along the x axis are percentages, those along the y axis pixels, so the drawing is as wide as the
screen while its text keeps its size.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Literal

import numpy as np

from bitwright.report.numerals import megabytes, percent, significant, size, with_error
from bitwright.report.summary import Candidate, Quality, RunSummary, SizeLimit

_HEIGHT = 400
_MARGIN = 0.08  # of the range, left and right of what is shown
_LINE_PX, _LETTER_PX = 16, 7.5  # of a label
_WIDTHS_PX = {"": 300, "wide ": 900}  # a label that collides on a phone is shown on wide screens only


@dataclass(frozen=True)
class _Axes:
    """The window that is drawn: bytes from left to right, divergence on a log scale from bottom to top."""

    left: float
    right: float
    low: float
    high: float

    def x(self, size_bytes: float) -> float:
        """Percent of the width."""
        return 100 * (size_bytes - self.left) / (self.right - self.left)

    def y(self, nats: float) -> float:
        """Pixels from the top; what is not positive lies on the bottom line."""
        height = (log10(max(nats, self.low)) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return _HEIGHT * (1 - height)


def front_chart(summary: RunSummary) -> str:
    """The legend and the drawing, as HTML."""
    axes = _axes(summary)
    ordered = sorted(summary.candidates, key=lambda candidate: candidate.chosen)  # the chosen one is drawn last, on top
    marks = "".join(_mark(candidate, axes) for candidate in ordered)
    drawing = _grid(axes) + _line(summary, axes) + _budget(summary, axes) + marks + "".join(_labels(summary, axes))
    title = f"Predicted front and measured candidates of {summary.model}"
    return f'{_LEGEND}<svg class="front" height="{_HEIGHT}" role="img" aria-label="{escape(title)}">{drawing}</svg>'


_LEGEND = """<ul class="legend">
<li><svg width="26" height="12"><line class="predicted" x1="1" y1="6" x2="25" y2="6"/></svg>predicted front</li>
<li><svg width="14" height="14"><circle class="plan chosen" cx="7" cy="7" r="6"/></svg>chosen plan</li>
<li><svg width="12" height="12"><circle class="plan" cx="6" cy="6" r="4.5"/></svg>other plan, measured</li>
<li><svg width="12" height="12"><circle class="unmeasured" cx="6" cy="6" r="4"/></svg>plan, predicted only</li>
<li><svg width="12" height="12"><rect class="uniform" x="1.5" y="1.5" width="9" height="9"/></svg>one format for all tensors</li>
<li><svg width="26" height="12"><line class="budget" x1="1" y1="6" x2="25" y2="6"/></svg>budget</li>
</ul>"""


def _axes(summary: RunSummary) -> _Axes:
    sizes = [float(candidate.size_bytes) for candidate in summary.candidates]
    sizes += [float(summary.budget.size_bytes)] if isinstance(summary.budget, SizeLimit) else []
    margin = _MARGIN * max(max(sizes) - min(sizes), 0.2 * max(sizes))
    left, right = min(sizes) - margin, max(sizes) + margin
    shown = (summary.front_sizes_bytes >= left) & (summary.front_sizes_bytes <= right)
    nats = [*summary.front_nats[shown], *(candidate.nats_per_token for candidate in summary.candidates)]
    positive = [value for value in nats if value > 0] or [1.0]
    return _Axes(left, right, min(positive) / 1.5, max(positive) * 1.5)


def _grid(axes: _Axes) -> str:
    across = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{axes.y(nats):.1f}" y2="{axes.y(nats):.1f}"/>'
        f'<text class="tick" x="-8" y="{axes.y(nats) + 4:.1f}" text-anchor="end">{significant(nats, 1)}</text>'
        for nats in _log_ticks(axes.low, axes.high)
    )
    up = "".join(
        f'<line class="tickmark" x1="{axes.x(mb * 1e6):.2f}%" x2="{axes.x(mb * 1e6):.2f}%" y1="{_HEIGHT}" y2="{_HEIGHT + 5}"/>'
        f'<text class="tick" x="{axes.x(mb * 1e6):.2f}%" y="{_HEIGHT + 20}" text-anchor="middle">{mb:,g}</text>'
        for mb in _round_ticks(axes.left / 1e6, axes.right / 1e6)
    )
    names = f'<text class="axis" x="50%" y="{_HEIGHT + 42}" text-anchor="middle">size of the file, MB</text>'
    names += '<text class="axis" x="-54" y="-14">divergence, nats/token (log scale)</text>'
    return f'{across}<line class="base" x1="0" x2="100%" y1="{_HEIGHT}" y2="{_HEIGHT}"/>{up}{names}'


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in the range, and 2 and 5 times each where the range has few of them."""
    steps = (1, 2, 5) if log10(high / low) < 3 else (1,)
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]


def _round_ticks(low: float, high: float) -> list[float]:
    """Four to eight multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5
    power = 10.0 ** floor(log10(rough))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor - rough / power))
    return [step * count for count in range(ceil(low / step), floor(high / step) + 1)]


def _line(summary: RunSummary, axes: _Axes) -> str:
    """The predicted front as a polyline, cut at the edges of the window."""
    known = summary.front_nats > 0
    sizes, logs = summary.front_sizes_bytes[known].astype(float), np.log(summary.front_nats[known])
    if not sizes.size or sizes[-1] < axes.left or sizes[0] > axes.right:
        return ""
    inside = (sizes > axes.left) & (sizes < axes.right)
    edges = np.clip([axes.left, axes.right], sizes[0], sizes[-1])
    at = np.concatenate([edges[:1], sizes[inside], edges[1:]])
    heights = np.concatenate([np.interp(edges[:1], sizes, logs), logs[inside], np.interp(edges[1:], sizes, logs)])
    points = " ".join(f"{axes.x(x):.2f},{axes.y(nats):.1f}" for x, nats in zip(at, np.exp(heights), strict=True))
    box = f'viewBox="0 0 100 {_HEIGHT}" width="100%" height="{_HEIGHT}" preserveAspectRatio="none"'
    return f'<svg {box}><polyline class="predicted" vector-effect="non-scaling-stroke" points="{points}"/></svg>'


def _budget(summary: RunSummary, axes: _Axes) -> str:
    if not isinstance(summary.budget, SizeLimit):
        return ""
    x = axes.x(summary.budget.size_bytes)
    anchor, shift = ("end", -6) if x > 60 else ("start", 6)
    label = f'<text class="note" x="{x:.2f}%" dx="{shift}" y="12" text-anchor="{anchor}">budget {size(summary.budget.size_bytes)}</text>'
    return f'<line class="budget" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="{_HEIGHT}"/>{label}'


def _mark(candidate: Candidate, axes: _Axes) -> str:
    x, y = axes.x(candidate.size_bytes), axes.y(candidate.nats_per_token)
    bar = ""
    if isinstance(candidate.measured, Quality):
        mean, error = candidate.measured.nats_per_token, candidate.measured.standard_error
        bar = f'<line class="error" x1="{x:.2f}%" x2="{x:.2f}%" y1="{axes.y(mean - error):.1f}" y2="{axes.y(mean + error):.1f}"/>'
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
    """A name at `x` percent and `y` pixels that runs to the left (`end`) or right (`start`) of there."""

    text: str
    x: float
    y: float
    anchor: Literal["start", "end"]

    def collides(self, other: "_Label", *, width_px: float) -> bool:
        """Whether the two overlap on a drawing of that width."""
        (start, stop), (other_start, other_stop) = self._span(width_px), other._span(width_px)
        return start < other_stop and other_start < stop and abs(self.y - other.y) < _LINE_PX

    def _span(self, width_px: float) -> tuple[float, float]:
        at, length = self.x / 100 * width_px, _LETTER_PX * (len(self.text) + 2)
        return (at, at + length) if self.anchor == "start" else (at - length, at)


def _labels(summary: RunSummary, axes: _Axes) -> Iterable[str]:
    """Names beside the chosen plan and the uniform formats, each only where it meets no earlier one."""
    placed: dict[str, list[_Label]] = {screen: [] for screen in _WIDTHS_PX}
    for candidate in sorted(summary.candidates, key=lambda candidate: not candidate.chosen):
        if not candidate.chosen and candidate.kind != "uniform":
            continue
        label = _label(candidate, axes)
        free = [screen for screen, width in _WIDTHS_PX.items() if not any(label.collides(other, width_px=width) for other in placed[screen])]
        for screen in free:
            placed[screen].append(label)
        if free:
            look = f"{free[0]}note{' chosen' if candidate.chosen else ''}"
            shift = 9 if label.anchor == "start" else -9
            at = f'x="{label.x:.2f}%" dx="{shift}" y="{label.y:.1f}" text-anchor="{label.anchor}"'
            yield f'<text class="{look}" {at}>{escape(label.text)}</text>'


def _label(candidate: Candidate, axes: _Axes) -> _Label:
    """Below and left for the chosen plan, above and right for the others: on their sides of the front there is room."""
    x, y = axes.x(candidate.size_bytes), axes.y(candidate.nats_per_token)
    if candidate.chosen:
        return _Label(candidate.label, x, y + 20, "end" if x > 15 else "start")
    return _Label(candidate.label, x, y - 5, "start" if x < 88 else "end")
