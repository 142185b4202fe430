"""Printing words of files, which the terminal must not obey."""

from io import StringIO

import pytest
from rich.table import Table

from bitwright.cli.output import Screen, visible


def printed(*things: object) -> str:
    out = StringIO()
    screen = Screen(file=out, force_terminal=True, color_system=None, width=80, highlight=False)
    for thing in things:
        screen.print(thing, markup=False)
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
