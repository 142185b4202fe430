"""Axes, scales and grid of a chart.

Inline SVG without a library. Positions along the x axis are percentages, those along the y axis pixels, so a chart is as wide as the screen while
its text keeps its size.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

_FEW = 3  # so many ticks are too few to read a scale


@dataclass(frozen=True)
class Scale(ABC):
    """Scale of an axis: maps values to positions. `low` is below `high`."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Return the position of a value between the ends, 0 to 1; values beyond an end are clipped to it."""
        return self._share(min(max(value, self.low), self.high))

    @abstractmethod
    def _share(self, value: float) -> float: ...

    @abstractmethod
    def ticks(self) -> list[float]:
        """Return round values between the ends."""


@dataclass(frozen=True)
class Linear(Scale):
    """Linear scale."""

    def _share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return four to eight multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** floor(log10(rough))
        step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor - rough / power))
        return [step * count for count in range(ceil(self.low / step), floor(self.high / step) + 1)]


@dataclass(frozen=True)
class Logarithmic(Scale):
    """Logarithmic scale; `low` is positive."""

    def _share(self, value: float) -> float:
        return log10(value / self.low) / log10(self.high / self.low)

    def ticks(self) -> list[float]:
        """Return powers of ten, also 2 and 5 times each where there are few of them, or the ticks of a linear scale where those are too few."""
        steps = (1, 2, 5) if log10(self.high / self.low) < 3 else (1,)
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        found = [step * 10.0**power for power in powers for step in steps if self.low <= step * 10.0**power <= self.high]
        return found if len(found) >= _FEW else Linear(self.low, self.high).ticks()


@dataclass(frozen=True)
class Window:
    """Plotting area: a scale from left to right, and one from bottom to top over `height` pixels."""

    across: Scale
    up: Scale
    height: int

    def x(self, value: float) -> float:
        """Return the horizontal position of a value in percent of the width."""
        return 100 * self.across.share(value)

    def y(self, value: float) -> float:
        """Return the vertical position of a value in pixels from the top."""
        return self.height * (1 - self.up.share(value))

    def drawing(self, content: str, *, title: str) -> str:
        """Return the whole chart, with a title for screen readers."""
        return f'<svg class="chart" height="{self.height}" role="img" aria-label="{escape(title)}">{content}</svg>'

    def grid(self, *, across: str, up: str) -> str:
        """Return the grid lines, tick labels and axis labels."""
        rows = "".join(
            f'<line class="grid" x1="0" x2="100%" y1="{self.y(value):.1f}" y2="{self.y(value):.1f}"/>'
            f'<text class="tick" x="-8" y="{self.y(value) + 4:.1f}" text-anchor="end">{_plain(value)}</text>'
            for value in self.up.ticks()
        )
        columns = "".join(
            f'<line class="tickmark" x1="{self.x(value):.2f}%" x2="{self.x(value):.2f}%" y1="{self.height}" y2="{self.height + 5}"/>'
            f'<text class="tick" x="{self.x(value):.2f}%" y="{self.height + 20}" text-anchor="middle">{_plain(value)}</text>'
            for value in self.across.ticks()
        )
        names = f'<text class="axis" x="50%" y="{self.height + 42}" text-anchor="middle">{across}</text>'
        names += f'<text class="axis" x="-54" y="-14">{up}</text>'
        return f'{rows}<line class="base" x1="0" x2="100%" y1="{self.height}" y2="{self.height}"/>{columns}{names}'

    def line(self, points: Iterable[tuple[float, float]], *, look: str) -> str:
        """Return a line through positions `(x, y)` of this window."""
        corners = " ".join(f"{x:.2f},{y:.1f}" for x, y in points)
        return self._stretched(f'<polyline class="{look}" vector-effect="non-scaling-stroke" points="{corners}"/>')

    def dots(self, points: Iterable[tuple[float, float]], *, look: str) -> str:
        """Return dots at positions `(x, y)` of this window as one element: strokes of zero length with round ends."""
        strokes = "".join(f"M{x:.2f} {y:.1f}h0" for x, y in points)
        return self._stretched(f'<path class="{look}" vector-effect="non-scaling-stroke" d="{strokes}"/>')

    def _stretched(self, shape: str) -> str:
        """Return a shape whose x runs from 0 to 100 over the whole width."""
        return f'<svg viewBox="0 0 100 {self.height}" width="100%" height="{self.height}" preserveAspectRatio="none">{shape}</svg>'


def _plain(value: float) -> str:
    """Format a round number without trailing zeros."""
    return f"{value:,g}".replace("e-0", "e-")
