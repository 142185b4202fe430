"""Candidates remeasured with the rounding method that ships, where it differs from the one that the search measured with."""

from dataclasses import dataclass

from rich.table import Table

from bitwright.report.numerals import megabytes, significant, with_error
from bitwright.report.tables.tabular import titled

HEADINGS = ("candidate", "MB", "as searched, nats/token", "as shipped, nats/token")


@dataclass(frozen=True)
class ShippedCandidate:
    """Candidate's divergence in nats/token with its standard error, with the rounding of the search and with the one that ships."""

    label: str
    size_bytes: int
    searched: tuple[float, float]
    shipped: tuple[float, float]
    chosen: bool


@dataclass(frozen=True)
class Shipping:
    """Requantized and remeasured candidates, and the rank correlations of both divergences, NaN for fewer than three."""

    searched: str
    shipped: str
    candidates: tuple[ShippedCandidate, ...]
    spearman: float
    kendall: float


def shipping_table(shipping: Shipping) -> Table:
    """Return a table with one row per candidate, the best as shipped first."""
    table = titled("As shipped", caption=agreement(shipping))
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:
        table.add_column(heading.replace(", ", "\n"), justify="right", no_wrap=True)
    for candidate in in_order(shipping):
        table.add_row(*cells(candidate), style="bold green" if candidate.chosen else "")
    return table


def in_order(shipping: Shipping) -> list[ShippedCandidate]:
    """Sort the candidates, the best as shipped first."""
    return sorted(shipping.candidates, key=lambda candidate: candidate.shipped)


def cells(candidate: ShippedCandidate) -> tuple[str, ...]:
    """Return the cells of a row under `HEADINGS`."""
    label = f"{'►' if candidate.chosen else ' '} {candidate.label}"
    return (label, megabytes(candidate.size_bytes), with_error(*candidate.searched), with_error(*candidate.shipped))


def agreement(shipping: Shipping) -> str:
    """Return a sentence with the rank correlations between both roundings."""
    ranks = f"Spearman {significant(shipping.spearman)}, Kendall {significant(shipping.kendall)}, over {len(shipping.candidates)} candidates"
    return f"Searched with {shipping.searched}, shipped with {shipping.shipped}. Rank correlation of both: {ranks}."
