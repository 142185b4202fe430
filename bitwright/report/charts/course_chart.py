"""Chart of a search's history: its best result so far against the tokens it has read.

For a budget that is the best divergence so far, with the other measured plans; for the whole front it is the hypervolume, the area that the measured
points dominate, as a share of the best known front's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from bitwright.report.charts.axes import Linear, Logarithmic, Scale, Window
from bitwright.report.limits import SizeLimit
from bitwright.report.numerals import duration, percent, significant, size, with_error
from bitwright.report.search_history import SearchHistory, SearchStep

_HEIGHT = 350
_MARGIN = 0.08  # of the range, above and below what is shown
_USUAL = 0.9  # share of the evaluations within the window; the others lie on its upper edge
_MARKS = 60  # at most, spread evenly over the improvements
_WORDS = ((1e9, ", billions"), (1e6, ", millions"), (1e3, ", thousands"))


@dataclass(frozen=True, eq=False)
class _Curve:
    """Curve of `values` `(n_known,)` after the steps `at` `(n_known,)` of a search, in `window`, whose x axis is in units of `token_unit` tokens."""

    at: NDArray[np.int64]
    values: NDArray[np.float64]
    window: Window
    token_unit: float

    @property
    def forward(self) -> NDArray[np.int64]:
        """Return the indices of the `values` that differ from the one before, the first included."""
        return np.flatnonzero(np.append(True, np.diff(self.values) != 0))


def course_chart(course: SearchHistory) -> str:
    """Return the legend and the chart as HTML; empty where no measured plan fits the budget."""
    if not np.isfinite(course.incumbent).any():
        return ""
    return _within(course, course.goal) if isinstance(course.goal, SizeLimit) else _along(course)


def _within(course: SearchHistory, goal: SizeLimit) -> str:
    at = np.flatnonzero(np.isfinite(course.incumbent))
    tried = [step for step in course.steps if step.size_bytes <= goal.size_bytes]
    curve = _curve(course, at, course.incumbent[at], up=_usual(tried, course.incumbent[at]))
    in_full = max(step.n_sequences for step in tried)
    full, part = ([step for step in tried if (step.n_sequences == in_full) is whole] for whole in (True, False))
    dots = _dots(part, curve, look="tried part") + _dots(full, curve, look="tried")
    legend = [_BEST, _LOWERED, _TRIED, *([_PART] if part else [])]
    return _drawn(course, curve, dots=dots, legend=legend, up="nats/token (log scale)")


def _along(course: SearchHistory) -> str:
    shares = 100 * course.hypervolume
    low, high = float(shares.min()), max(100.0, float(shares.max()))
    up = Linear(low - _MARGIN * max(high - low, 1.0), high)
    curve = _curve(course, np.arange(len(shares)), shares, up=up)
    return _drawn(course, curve, dots="", legend=[_AREA, _ENLARGED], up="% of the best known front's")


_BEST = '<svg width="26" height="12"><line class="course" x1="1" y1="6" x2="25" y2="6"/></svg>best so far'
_AREA = '<svg width="26" height="12"><line class="course" x1="1" y1="6" x2="25" y2="6"/></svg>hypervolume so far'
_LOWERED = '<svg width="12" height="12"><circle class="plan" cx="6" cy="6" r="4.5"/></svg>better file'
_ENLARGED = '<svg width="12" height="12"><circle class="plan" cx="6" cy="6" r="4.5"/></svg>file that enlarged it'
_TRIED = '<svg width="12" height="12"><path class="tried" d="M6 6h0"/></svg>other file'
_PART = '<svg width="12" height="12"><path class="tried part" d="M6 6h0"/></svg>other, in part'


def _usual(tried: list[SearchStep], best: NDArray[np.float64]) -> Logarithmic:
    """Return a scale from the least value to the first best or the 90 % quantile of all evaluations; nonpositive values lie on the lower edge."""
    nats = np.array([step.nats_per_token for step in tried])
    positive = [value for value in (*nats, *best) if value > 0] or [1.0]
    low, high = min(positive), max(float(best.max()), float(np.quantile(nats, _USUAL)), min(positive))
    room = max((high / low) ** _MARGIN, 1.002)
    return Logarithmic(low / room, high * room)


def _curve(course: SearchHistory, at: NDArray[np.int64], values: NDArray[np.float64], *, up: Scale) -> _Curve:
    token_unit, _ = _token_unit(course)
    return _Curve(at, values, Window(Linear(0.0, max(course.tokens, 1) / token_unit), up, _HEIGHT), token_unit)


def _token_unit(course: SearchHistory) -> tuple[float, str]:
    return next(((unit, word) for unit, word in _WORDS if course.tokens >= unit), (1.0, ""))


def _drawn(course: SearchHistory, curve: _Curve, *, dots: str, legend: list[str], up: str) -> str:
    forward = curve.forward
    shown = forward if len(forward) <= _MARKS else forward[np.linspace(0, len(forward) - 1, _MARKS).round().astype(int)]
    marks = "".join(_mark(course, curve, int(i)) for i in shown)
    grid = curve.window.grid(across=f"tokens read{_token_unit(course)[1]}", up=up)
    content = grid + dots + curve.window.line(_staircase(course, curve), look="course") + marks + _last(course, curve)
    entries = "".join(f"<li>{entry}</li>" for entry in legend)
    return f'<ul class="legend">{entries}</ul>{curve.window.drawing(content, title=f"History of the search by {course.method}")}'


def _staircase(course: SearchHistory, curve: _Curve) -> Iterable[tuple[float, float]]:
    """Return the corners of the step line: a value holds until the step that changes it."""
    window, before = curve.window, curve.values[0]
    for i in curve.forward:
        x = window.x(course.steps[curve.at[i]].tokens / curve.token_unit)
        yield x, window.y(before)
        before = curve.values[i]
        yield x, window.y(before)
    yield 100.0, window.y(before)


def _dots(steps: list[SearchStep], curve: _Curve, *, look: str) -> str:
    window = curve.window
    return window.dots([(window.x(step.tokens / curve.token_unit), window.y(step.nats_per_token)) for step in steps], look=look) if steps else ""


def _mark(course: SearchHistory, curve: _Curve, i: int) -> str:
    step = int(curve.at[i])
    x, y = curve.window.x(course.steps[step].tokens / curve.token_unit), curve.window.y(curve.values[i])
    return f'<g data-tip="{escape(_tip(course, step))}" tabindex="0"><circle class="plan" cx="{x:.2f}%" cy="{y:.1f}" r="4.5"/></g>'


def _tip(course: SearchHistory, i: int) -> str:
    step = course.steps[i]
    return "\n".join(
        [
            f"evaluation {i + 1:,} of {len(course.steps):,}",
            f"{size(step.size_bytes)}, {with_error(step.nats_per_token, step.standard_error)} nats/token",
            f"on {step.n_sequences:,} sequences",
            _so_far(course, i),
            f"{step.tokens:,} tokens · {duration(step.seconds)}",
        ]
    )


def _so_far(course: SearchHistory, i: int) -> str:
    if isinstance(course.goal, SizeLimit):
        return f"best so far {significant(float(course.incumbent[i]))} nats/token"
    return f"hypervolume so far {percent(float(course.hypervolume[i]))}"


def _last(course: SearchHistory, curve: _Curve) -> str:
    """Return the label of the final value, below the end of the line, where nothing else lies."""
    text = significant(float(curve.values[-1])) if isinstance(course.goal, SizeLimit) else percent(curve.values[-1] / 100)
    return f'<text class="note chosen" x="100%" y="{curve.window.y(curve.values[-1]) + 19:.1f}" text-anchor="end">{text}</text>'
