"""Tables of the front on three axes: the least divergence by size and ceiling on the cost, and the cost of each candidate."""

import numpy as np
from rich.table import Table

from bitwright.report.cost_front import CostFront
from bitwright.report.numerals import megabytes, significant, with_error
from bitwright.report.summary import Quality, RunSummary
from bitwright.report.tables.tabular import titled

_ROWS = 10


def cost_front_cells(front: CostFront) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return headings and rows: a size, and for each ceiling the least divergence within both."""
    sizes = np.geomspace(front.sizes_bytes.min(), front.sizes_bytes.max(), _ROWS + 1)[1:] if np.ptp(front.sizes_bytes) else front.sizes_bytes[:1]
    headings = ("at most MB", *(front.words(ceiling) for ceiling in front.ceilings))
    return headings, tuple((megabytes(size), *(significant(front.least(size, ceiling)) for ceiling in front.ceilings)) for size in sizes)


def cost_front_table(front: CostFront) -> Table:
    """Return a table of predicted nats/token by size and ceiling."""
    headings, rows = cost_front_cells(front)
    caption = f"Columns: ceilings on {front.cost}. Cells: the least predicted nats/token of {len(front.nats):,} points; – for no point."
    table = titled(f"Size against divergence, {front.title}", caption=caption)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def candidate_costs_table(summary: RunSummary) -> Table:
    """Return a table of every candidate with each of its costs."""
    table = titled("Costs of the candidates", caption="*: predicted, not measured.")
    table.add_column("", overflow="fold")
    for heading in ("MB", "nats/token", *(front.cost for front in summary.cost_fronts)):
        table.add_column(heading, justify="right", no_wrap=True)
    for i, candidate in sorted(enumerate(summary.candidates), key=lambda pair: pair[1].size_bytes):
        quality = candidate.measured
        nats = (
            with_error(quality.nats_per_token, quality.standard_error)
            if isinstance(quality, Quality)
            else f"{significant(candidate.predicted_nats)} *"
        )
        taken = (front.words(float(front.of_candidates[i])) for front in summary.cost_fronts)
        table.add_row(f"{'►' if candidate.chosen else ' '} {candidate.label}", megabytes(candidate.size_bytes), nats, *taken)
    return table
