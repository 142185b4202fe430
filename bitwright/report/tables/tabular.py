"""Common style of the tables in a terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table


def titled(title: str, *, caption: str) -> Table:
    """Return an empty table in the common style."""
    layout = Table(title=title, caption=caption, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    layout.title_justify = layout.caption_justify = "left"
    layout.title_style, layout.caption_style = "bold", "dim"
    return layout
