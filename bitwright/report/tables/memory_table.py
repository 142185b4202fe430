"""Table of the memory that serving a model takes, by part."""

from collections.abc import Iterable

from rich.table import Table

from bitwright.report.tables.tabular import titled

_MEBIBYTE = 2**20


def memory_table(lines: Iterable[tuple[str, int, str, str]]) -> Table:
    """Return a table of `lines`: name, bytes, basis (exact, counted or fitted), and detail."""
    rows = list(lines)
    total = sum(size for _, size, _, _ in rows)
    caption = "exact: to the byte on every shape tried. counted: found from the buffers it reports. fitted: to resident sizes of its process."
    table = titled("Memory of a run", caption=caption)
    table.add_column("")
    for heading in ("MiB", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("known")
    table.add_column("")
    for name, size, known, detail in rows:
        table.add_row(name, f"{size / _MEBIBYTE:,.1f}", f"{size / total:.1%}", known, detail)
    table.add_section()
    table.add_row("total", f"{total / _MEBIBYTE:,.1f}", "", "", f"{total:,} bytes", style="bold")
    return table
