"""Scales, grid and frame of a drawing.

Inline SVG without a library. Positions along the x axis are percentages, those along the y axis pixels, so a drawing is as wide as the screen while
its text keeps its size.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

_FEW = 3  # ticks are too few to read a scale by


@dataclass(frozen=True)
class Scale(ABC):
    """One axis: from values to places on it. `low` is below `high`."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1; what is beyond an end lies on it."""
        return self._share(min(max(value, self.low), self.high))

    @abstractmethod
    def _share(self, value: float) -> float: ...

    @abstractmethod
    def ticks(self) -> list[float]:
        """Round values between the ends."""


@dataclass(frozen=True)
class Linear(Scale):
    """Equal steps for equal differences."""

    def _share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Four to eight multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** floor(log10(rough))
        step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor - rough / power))
        return [step * count for count in range(ceil(self.low / step), floor(self.high / step) + 1)]


@dataclass(frozen=True)
class Logarithmic(Scale):
    """Equal steps for equal ratios; `low` is positive."""

    def _share(self, value: float) -> float:
        return log10(value / self.low) / log10(self.high / self.low)

    def ticks(self) -> list[float]:
        """Powers of ten, 2 and 5 times each where there are few of them, and where those are too few the ticks of a linear scale."""
        steps = (1, 2, 5) if log10(self.high / self.low) < 3 else (1,)
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        found = [step * 10.0**power for power in powers for step in steps if self.low <= step * 10.0**power <= self.high]
        return found if len(found) >= _FEW else Linear(self.low, self.high).ticks()


@dataclass(frozen=True)
class Window:
    """What is drawn: from left to right, and from bottom to top on `height` pixels."""

    across: Scale
    up: Scale
    height: int

    def x(self, value: float) -> float:
        """Percent of the width."""
        return 100 * self.across.share(value)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return self.height * (1 - self.up.share(value))

    def drawing(self, content: str, *, title: str) -> str:
        """The whole drawing, of a title that is read aloud."""
        return f'<svg class="chart" height="{self.height}" role="img" aria-label="{escape(title)}">{content}</svg>'

    def grid(self, *, across: str, up: str) -> str:
        """The lines and numbers behind a drawing, and the names of its axes."""
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
        """A line through places `(x, y)` of this window."""
        corners = " ".join(f"{x:.2f},{y:.1f}" for x, y in points)
        return self._stretched(f'<polyline class="{look}" vector-effect="non-scaling-stroke" points="{corners}"/>')

    def dots(self, points: Iterable[tuple[float, float]], *, look: str) -> str:
        """Any number of places `(x, y)` of this window as one element: strokes of no length, with round ends."""
        strokes = "".join(f"M{x:.2f} {y:.1f}h0" for x, y in points)
        return self._stretched(f'<path class="{look}" vector-effect="non-scaling-stroke" d="{strokes}"/>')

    def _stretched(self, shape: str) -> str:
        """A shape whose x runs from 0 to 100 over the whole width."""
        return f'<svg viewBox="0 0 100 {self.height}" width="100%" height="{self.height}" preserveAspectRatio="none">{shape}</svg>'


def _plain(value: float) -> str:
    """A round number without zeros behind it."""
    return f"{value:,g}".replace("e-0", "e-")
