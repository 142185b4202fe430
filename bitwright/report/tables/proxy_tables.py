"""Tables that compare sensitivity proxies on a model: rank correlation with measured plans, and with each other."""

from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bitwright.report.numerals import significant
from bitwright.report.tables.tabular import titled

_MOST_SHOWN = 12  # columns that fit into a terminal of 80


@dataclass(frozen=True)
class Ranks:
    """Spearman's rank correlation with its 95 % interval, and Kendall's; NaN where they are undefined."""

    spearman: float
    low: float
    high: float
    kendall: float

    @property
    def text(self) -> str:
        """Format Spearman's coefficient and its interval."""
        return "–" if isnan(self.spearman) else f"{self.spearman:.3f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class ProxyCost:
    """Cost of a proxy: its name, source, and the most forward and backward passes over the calibration text that its table takes."""

    name: str
    source: str
    forward: float
    backward: float


@dataclass(frozen=True)
class RankedProxy:
    """Rank correlations of a proxy's summed table with the measured divergence of all plans (`every`), and of plans of equal size (`alike`)."""

    name: str
    every: Ranks
    alike: Ranks


@dataclass(frozen=True, eq=False)
class ProxyComparison:
    """Comparison of proxies on `n_plans` measured plans, `n_alike` of them of equal size: rank correlations, Spearman's coefficients between their
    tables `among` `(n, n)`, and the ranges (from, to) of the divergences in nats per token.
    """

    proxies: tuple[RankedProxy, ...]
    among: NDArray[np.float64]
    n_plans: int
    n_alike: int
    nats_every: tuple[float, float]
    nats_alike: tuple[float, float]

    @property
    def ranked(self) -> list[int]:
        """Return the indices of the proxies, best first: by Spearman's coefficient on plans of equal size, on all plans where it is undefined."""
        keys = [tuple(-1.0 if isnan(value) else value for value in (p.alike.spearman, p.every.spearman)) for p in self.proxies]
        return sorted(range(len(keys)), key=lambda i: keys[i], reverse=True)

    @property
    def best(self) -> RankedProxy:
        """Best proxy."""
        return self.proxies[self.ranked[0]]

    @property
    def tied_with_best(self) -> list[RankedProxy]:
        """Return the other proxies whose coefficient lies within the interval of the best."""
        return [p for i in self.ranked[1:] if (p := self.proxies[i]).alike.spearman >= self.best.alike.low]


def costs_table(proxies: tuple[ProxyCost, ...]) -> Table:
    """Return a table of the proxies with source and cost."""
    table = titled("Proxies", caption="Passes over the calibration text at most, forward + backward: proxies share common passes.")
    table.add_column("proxy", no_wrap=True)
    table.add_column("source", overflow="fold")
    table.add_column("passes", justify="right", no_wrap=True)
    for proxy in proxies:
        table.add_row(proxy.name, proxy.source, f"{proxy.forward:.0f} + {proxy.backward:.0f}")
    return table


def proxies_table(comparison: ProxyComparison) -> Table:
    """Return a table of every proxy, the best first."""
    every, alike = (f"{significant(low)} to {significant(high)} nats/token" for low, high in (comparison.nats_every, comparison.nats_alike))
    table = titled(
        "Rank correlation of proxies with measured plans",
        caption=f"{comparison.n_plans} plans ({every}), {comparison.n_alike} of them of equal size ({alike}). Rank correlations, Spearman's with "
        "95 % intervals.",
    )
    table.add_column("", justify="right")
    table.add_column("proxy", no_wrap=True)
    for heading in ("equal size\nSpearman", "\nKendall", "all plans\nSpearman"):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, i in enumerate(comparison.ranked, start=1):
        proxy = comparison.proxies[i]
        kendall = "–" if isnan(proxy.alike.kendall) else f"{proxy.alike.kendall:.2f}"
        table.add_row(str(place), proxy.name, proxy.alike.text, kendall, proxy.every.text, style="bold green" if place == 1 else "")
    return table


def agreement_table(comparison: ProxyComparison) -> Table:
    """Return a table of Spearman's coefficients between the proxies' tables, in hundredths, in the order of `proxies_table`."""
    order = comparison.ranked[:_MOST_SHOWN]
    note = "" if len(order) == len(comparison.proxies) else f" Only the first {len(order)} are shown."
    table = titled("Rank correlation between proxies", caption=f"Spearman's coefficient over all units and formats, in hundredths.{note}")
    table.padding = (0, 0, 0, 1)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("proxy", no_wrap=True)
    for place in range(1, len(order)):
        table.add_column(str(place), justify="right", no_wrap=True)
    for place, i in enumerate(order, start=1):
        cells = ("–" if isnan(value) else f"{100 * value:.0f}" for value in comparison.among[i, order[: place - 1]])
        table.add_row(str(place), comparison.proxies[i].name, *cells)
    return table


def verdict(comparison: ProxyComparison) -> str:
    """Return a sentence or two on the best proxy for this model."""
    best = comparison.best
    if isnan(best.alike.spearman):
        return "These plans are too few, or too alike, to tell which proxy to trust: measure more with --plans."
    tied_with_best = ", ".join(proxy.name for proxy in comparison.tied_with_best)
    others = f" These plans cannot tell it from {tied_with_best}." if tied_with_best else ""
    return f"On this model and text, trust {best.name}: it ranks plans of equal size with Spearman {best.alike.spearman:.3f}.{others}"
