"""The front on three axes in a terminal: the least divergence for a size and a ceiling, and what was measured."""

import numpy as np
from rich.table import Table

from bitwright.report.cost_front import CostFront
from bitwright.report.numerals import megabytes, significant, with_error
from bitwright.report.summary import Quality, RunSummary
from bitwright.report.tables.tabular import titled

_ROWS = 10


def cost_front_cells(front: CostFront) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Headings and rows: a size, and for each ceiling the least divergence of both."""
    sizes = np.geomspace(front.sizes_bytes.min(), front.sizes_bytes.max(), _ROWS + 1)[1:] if np.ptp(front.sizes_bytes) else front.sizes_bytes[:1]
    headings = ("at most MB", *(front.words(ceiling) for ceiling in front.ceilings))
    return headings, tuple((megabytes(size), *(significant(front.least(size, ceiling)) for ceiling in front.ceilings)) for size in sizes)


def cost_front_table(front: CostFront) -> Table:
    """Predicted nats/token for sizes and ceilings."""
    headings, rows = cost_front_cells(front)
    caption = f"Columns: ceilings on {front.cost}. Cells: the least predicted nats/token of {len(front.nats):,} points; – is none."
    table = titled(f"Size against divergence, {front.title}", caption=caption)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def candidate_costs_table(summary: RunSummary) -> Table:
    """Every candidate with what it takes of each cost."""
    table = titled("What the candidates take", caption="*: predicted, not measured.")
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
