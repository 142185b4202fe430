"""Tables of the search methods, and of candidates by several objectives."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bitwright.report.numerals import with_error


def methods_table(methods: Iterable[tuple[str, str, str]]) -> Table:
    """Return a table with one row per method: name, source, and differences from it."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("--method", "published in", "differences"):
        table.add_column(heading, overflow="fold")
    for name, source, differs in methods:
        table.add_row(name, source, differs or "–")
    return table


def objectives_table(names: Iterable[str], rows: Iterable[tuple[str, Iterable[tuple[float, float]]]]) -> Table:
    """Return a table with one row per candidate: its name, and (value, standard error) of each of the objectives called `names`."""
    table = Table(title="Objectives on held-out text", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.title_justify, table.title_style = "left", "bold"
    table.add_column("", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for name, values in rows:
        table.add_row(name, *(with_error(value, error) for value, error in values))
    return table
