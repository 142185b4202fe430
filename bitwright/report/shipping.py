"""What shipping with another rounding than the search measured with does to the candidates, and whether it ranks them otherwise."""

from dataclasses import dataclass

from rich.table import Table

from bitwright.report.numerals import megabytes, significant, with_error
from bitwright.report.tables.tabular import titled

HEADINGS = ("candidate", "MB", "as searched, nats/token", "as shipped, nats/token")


@dataclass(frozen=True)
class ShippedCandidate:
    """A candidate's divergence in nats/token with its standard error, by the rounding of the search and by the one that ships."""

    label: str
    size_bytes: int
    searched: tuple[float, float]
    shipped: tuple[float, float]
    chosen: bool


@dataclass(frozen=True)
class Shipping:
    """The candidates that were rounded and measured again, and the rank correlations of both divergences, NaN for fewer than three."""

    searched: str
    shipped: str
    candidates: tuple[ShippedCandidate, ...]
    spearman: float
    kendall: float


@dataclass(frozen=True)
class AsSearched:
    """The rounding that ships is the one that was searched with."""


def shipping_table(shipping: Shipping) -> Table:
    """A row for each candidate, the best as shipped first."""
    table = titled("As shipped", caption=agreement(shipping))
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:
        table.add_column(heading.replace(", ", "\n"), justify="right", no_wrap=True)
    for candidate in in_order(shipping):
        table.add_row(*cells(candidate), style="bold green" if candidate.chosen else "")
    return table


def in_order(shipping: Shipping) -> list[ShippedCandidate]:
    """The candidates, the best as shipped first."""
    return sorted(shipping.candidates, key=lambda candidate: candidate.shipped)


def cells(candidate: ShippedCandidate) -> tuple[str, ...]:
    """A row under `HEADINGS`."""
    label = f"{'►' if candidate.chosen else ' '} {candidate.label}"
    return (label, megabytes(candidate.size_bytes), with_error(*candidate.searched), with_error(*candidate.shipped))


def agreement(shipping: Shipping) -> str:
    """Return whether both roundings rank the candidates alike, in words."""
    ranks = f"Spearman {significant(shipping.spearman)}, Kendall {significant(shipping.kendall)}, over {len(shipping.candidates)} candidates"
    return f"Searched with {shipping.searched}, shipped with {shipping.shipped}. Rank correlation of both: {ranks}."
