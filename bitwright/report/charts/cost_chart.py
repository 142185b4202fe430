"""Chart of the front on three axes: size against divergence, one line per ceiling on the cost, candidates in the colour of their ceiling."""

from html import escape

import numpy as np

from bitwright.report.charts.axes import Linear, Logarithmic, Window
from bitwright.report.cost_front import CostFront
from bitwright.report.numerals import megabytes, significant, with_error
from bitwright.report.summary import Candidate, Quality, RunSummary

_HEIGHT = 380


def cost_chart(summary: RunSummary, front: CostFront) -> str:
    """Return the legend and the chart as HTML."""
    window = _window(summary, front)
    lines = []
    for level, ceiling in enumerate(front.ceilings):
        sizes, nats = front.within(float(ceiling))
        seen = nats > 0
        lines.append(window.line([(window.x(s / 1e6), window.y(n)) for s, n in zip(sizes[seen], nats[seen], strict=True)], look=f"ceiling c{level}"))
    marks = (_mark(c, front, float(taken), window) for c, taken in zip(summary.candidates, front.of_candidates, strict=True))
    grid = window.grid(across="size of the file, MB", up="divergence, nats/token (log scale)")
    title = f"Front of {summary.model} by size, divergence and {front.title}"
    return _legend(front) + window.drawing(grid + "".join(lines) + "".join(marks), title=title)


def _legend(front: CostFront) -> str:
    line = '<li><svg width="26" height="12"><line class="ceiling c{level}" x1="1" y1="6" x2="25" y2="6"/></svg>{words}</li>'
    words = (f"at most {front.words(ceiling)}" for ceiling in front.ceilings)
    return f'<ul class="legend">{"".join(line.format(level=level, words=escape(text)) for level, text in enumerate(words))}</ul>'


def _window(summary: RunSummary, front: CostFront) -> Window:
    sizes = [*front.sizes_bytes / 1e6, *(candidate.size_bytes / 1e6 for candidate in summary.candidates)]
    nats = [value for value in (*front.nats, *(candidate.nats_per_token for candidate in summary.candidates)) if value > 0] or [1.0]
    margin = 0.04 * max(max(sizes) - min(sizes), 0.2 * max(sizes))
    return Window(Linear(min(sizes) - margin, max(sizes) + margin), Logarithmic(min(nats) / 1.5, max(nats) * 1.5), _HEIGHT)


def _mark(candidate: Candidate, front: CostFront, taken: float, window: Window) -> str:
    level = min(int(np.searchsorted(front.ceilings, taken * (1 - 1e-12))), len(front.ceilings) - 1)
    quality = candidate.measured
    known = (
        with_error(quality.nats_per_token, quality.standard_error)
        if isinstance(quality, Quality)
        else f"predicted {significant(candidate.nats_per_token)}"
    )
    tip = f"{candidate.label}\n{megabytes(candidate.size_bytes)} MB · {front.words(taken)}\n{known} nats/token"
    x, y = window.x(candidate.size_bytes / 1e6), window.y(candidate.nats_per_token)
    circle = (
        f'<circle class="within c{level}{" chosen" if candidate.chosen else ""}" cx="{x:.2f}%" cy="{y:.1f}" r="{7 if candidate.chosen else 4.5}"/>'
    )
    return f'<g data-tip="{escape(tip)}" tabindex="0">{circle}</g>'
