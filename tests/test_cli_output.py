"""Printing words of files, which the terminal must not obey."""

from io import StringIO

import pytest
from rich.table import Table

from bitwright.cli.output import screen, visible


def printed(*things: object) -> str:
    out = StringIO()
    plain = screen(file=out, width=80)
    for thing in things:
        plain.print(thing)
    return out.getvalue()


@pytest.mark.parametrize("text", ["\x1b[2J\x1b[31mred", "bell\x07", "back\x08space", "line\rover", "\x9b31m", "\u202etxt.exe", "lone \ud800"])
def test_control_signs_are_shown_and_not_obeyed(text: str) -> None:
    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(text)
    found = printed(text, table)
    assert not any(letter in found for letter in "\x1b\x07\x08\r\x9b\u202e\ud800")
    assert "\\x1b[31mred" in printed("\x1b[31mred")


def test_letters_of_every_script_stay_as_they_are() -> None:
    for text in ("café 日本 🙂 ▁the", "a\tb\nc"):
        assert visible(text) == text
    assert "日本" in printed("日本")


@pytest.mark.parametrize("name", ["[/]", "[red]", "[bold]x[/bold]", "[link=a]", ":smile:", "a[0]"])
def test_names_with_brackets_or_colons_are_words_in_every_cell(name: str) -> None:
    table = Table(title=f"{name} title", caption=f"{name} caption")
    table.add_column(f"{name} column")
    table.add_row(f"{name} cell")
    found = printed(f"{name} sentence", table)
    assert all(f"{name} {kind}" in found for kind in ("sentence", "title", "caption", "column", "cell")), found
