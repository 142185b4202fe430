"""Which proxy to trust on a model: how each ranks plans that were measured, and how the proxies rank pairs among themselves."""

from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bitwright.report.numerals import significant
from bitwright.report.tables.tabular import titled

_MOST_SHOWN = 12  # whose columns fit into a terminal of 80


@dataclass(frozen=True)
class Ranks:
    """Spearman's coefficient with its 95 % interval, and Kendall's; NaN where they are undefined."""

    spearman: float
    low: float
    high: float
    kendall: float

    @property
    def text(self) -> str:
        """Spearman's coefficient and its interval."""
        return "–" if isnan(self.spearman) else f"{self.spearman:.3f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class PricedProxy:
    """A proxy, what it is, and what its table takes at most in passes over the calibration text."""

    name: str
    source: str
    forward: float
    backward: float


@dataclass(frozen=True)
class JudgedProxy:
    """How the sums of a proxy's table rank all plans, and those of equal size, `alike`."""

    name: str
    every: Ranks
    alike: Ranks


@dataclass(frozen=True, eq=False)
class ProxyComparison:
    """Judged proxies, and Spearman's coefficients of their tables `(n, n)`; on how many plans, of which `n_alike` are of equal size, and which
    divergences these have, from and to, in nats per token.
    """

    proxies: tuple[JudgedProxy, ...]
    among: NDArray[np.float64]
    n_plans: int
    n_alike: int
    nats_every: tuple[float, float]
    nats_alike: tuple[float, float]

    @property
    def ranked(self) -> list[int]:
        """Indices of the proxies from the most trustworthy: by their rank of plans of equal size, and of all where that says nothing."""
        keys = [tuple(-1.0 if isnan(value) else value for value in (p.alike.spearman, p.every.spearman)) for p in self.proxies]
        return sorted(range(len(keys)), key=lambda i: keys[i], reverse=True)

    @property
    def best(self) -> JudgedProxy:
        """The one to trust."""
        return self.proxies[self.ranked[0]]

    @property
    def as_good(self) -> list[JudgedProxy]:
        """Others that these plans cannot tell from the best: their coefficient lies within its interval."""
        return [p for i in self.ranked[1:] if (p := self.proxies[i]).alike.spearman >= self.best.alike.low]


def costs_table(proxies: tuple[PricedProxy, ...]) -> Table:
    """What each proxy is and takes."""
    table = titled("Proxies", caption="Passes over the calibration text at most, forward + backward: proxies share what they have in common.")
    table.add_column("proxy", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    table.add_column("passes", justify="right", no_wrap=True)
    for proxy in proxies:
        table.add_row(proxy.name, proxy.source, f"{proxy.forward:.0f} + {proxy.backward:.0f}")
    return table


def proxies_table(comparison: ProxyComparison) -> Table:
    """Every proxy, the most trustworthy first."""
    every, alike = (f"{significant(low)} to {significant(high)} nats/token" for low, high in (comparison.nats_every, comparison.nats_alike))
    table = titled(
        "How their sums rank measured plans",
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
    """How the tables rank pairs of a unit and a format among themselves, in hundredths, in the order of `proxies_table`."""
    order = comparison.ranked[:_MOST_SHOWN]
    of = "" if len(order) == len(comparison.proxies) else f" Only the first {len(order)} are shown."
    table = titled("How the tables agree among themselves", caption=f"Spearman's coefficient over all units and formats, in hundredths.{of}")
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
    """In a sentence or two which proxy to trust here."""
    best = comparison.best
    if isnan(best.alike.spearman):
        return "These plans are too few, or too alike, to tell which proxy to trust: measure more with --plans."
    as_good = ", ".join(proxy.name for proxy in comparison.as_good)
    others = f" These plans cannot tell it from {as_good}." if as_good else ""
    return f"On this model and text, trust {best.name}: it ranks plans of equal size with Spearman {best.alike.spearman:.3f}.{others}"
