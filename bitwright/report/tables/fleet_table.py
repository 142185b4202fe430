"""Table of a fleet: the plan of each device."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from bitwright.report.numerals import with_error
from bitwright.report.tables.tabular import titled

_MEBIBYTE = 2**20


@dataclass(frozen=True)
class FleetRow:
    """Plan of one device; divergence in nats per token."""

    device: str
    size_bytes: int
    bits_per_weight: float
    nats_per_token: float
    standard_error: float
    basis: str
    cache: str
    memory_bytes: int
    usable_bytes: int
    tokens_per_second: float


def fleet_table(rows: Iterable[FleetRow]) -> Table:
    """Return a table of the devices that have a plan."""
    caption = "tokens/s: upper bound per sequence with a full context, by bandwidth. *: predicted from the run's measurements."
    table = titled("Fleet", caption=caption)
    table.add_column("device", min_width=16, overflow="fold")
    table.add_column("cache", overflow="fold")
    for heading in ("file\nMiB", "bits/\nweight", "nats/token", "memory\nMiB", "of\nMiB", "tokens\n/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        file, memory, usable = (f"{size / _MEBIBYTE:,.0f}" for size in (row.size_bytes, row.memory_bytes, row.usable_bytes))
        quality = with_error(row.nats_per_token, row.standard_error) + ("" if row.basis == "measured" else " *")
        table.add_row(row.device, row.cache, file, f"{row.bits_per_weight:.2f}", quality, memory, usable, f"{row.tokens_per_second:,.0f}")
    return table
