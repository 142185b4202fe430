"""Tables of the search methods, and of candidates by several objectives."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bitwright.report.numerals import with_error
from bitwright.spaces import Provenance


def methods_table(methods: Iterable[tuple[str, str, str]]) -> Table:
    """Return a table with one row per method: name, source, and differences from it."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("--method", "published in", "differences"):
        table.add_column(heading, overflow="fold")
    for name, source, differs in methods:
        table.add_row(name, source, differs or "–")
    return table


def whose_plan(found: Provenance) -> str:
    """Return a sentence on the method behind the plan and the cost of its search, empty if there was no search."""
    if not found.method:
        return ""
    spent = f"{found.effort.evaluations:,} evaluations and {found.effort.tokens:,} tokens"
    whose = {
        "method": f"{found.method}'s own",
        "table": "the optimum of the sensitivity table",
        "uniform": "a uniform allocation",
        "given": "the one that was given",
    }
    if found.won == "method":
        return f"The plan is {whose[found.won]}, found with {spent}."
    return f"The plan is {whose[found.won]}: {found.method} found none better with {spent}."


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
