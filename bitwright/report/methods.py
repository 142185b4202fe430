"""The search methods in a terminal: what each is called, where it was published, and what is done otherwise here."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table


def methods_table(methods: Iterable[tuple[str, str, str]]) -> Table:
    """A row for each (name, source, what differs from it)."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("--method", "published in", "done otherwise here"):
        table.add_column(heading, overflow="fold")
    for name, source, differs in methods:
        table.add_row(name, source, differs or "–")
    return table
