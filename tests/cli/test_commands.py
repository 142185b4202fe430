"""Help of the command line: every command in a panel, every option in a panel with a sentence, former names hidden."""

import re
import sys

import pytest

from bitwright.cli.commands import COMMANDS
from bitwright.cli.options import PANELS
from bitwright.engines import engine_names
from tests.commands import Cli

EVERY = [name for commands in COMMANDS.values() for name in commands]


def shown(bitwright: Cli, *words: str) -> str:
    """The text of a help page as one line without frames."""
    ended = bitwright(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    return " ".join(re.sub("[│╭╮╰╯─]", " ", ended.out).split())


def test_help_shows_every_command_in_its_panel(bitwright: Cli) -> None:
    found = shown(bitwright)
    ends = [found.index(f" {panel} ") for panel in COMMANDS] + [len(found)]
    assert ends == sorted(ends)
    for commands, start, end in zip(COMMANDS.values(), ends, ends[1:], strict=False):
        assert all(f" {name} " in found[start:end] for name in commands)
    assert bitwright().out.count("Usage") == 1


@pytest.mark.parametrize("command", EVERY)
def test_every_command_explains_itself(bitwright: Cli, command: str) -> None:
    found = shown(bitwright, command)
    assert found.startswith(f"Usage: bitwright {command} ")
    assert "[default: .]" not in found
    assert "[default: inf]" not in found
    assert "[default: None]" not in found
    panels = [panel for panel in PANELS if f" {panel} " in found]
    assert [found.index(f" {panel} ") for panel in panels] == sorted(found.index(f" {panel} ") for panel in panels)
    assert found.index(" Output ") < found.index("--help")


def test_a_fit_has_every_panel_and_none_beside(bitwright: Cli) -> None:
    found = shown(bitwright, "fit")
    assert all(f" {panel} --" in found or f" {panel} * --" in found for panel in PANELS)
    assert " Options --" not in found
    assert all(re.search(rf"[ (]{re.escape(target)}[,. ]", found) for target in engine_names())


@pytest.mark.slow
def test_brackets_are_shown_and_not_taken_for_markup(bitwright: Cli) -> None:
    assert "[[device]]" in shown(bitwright, "fleet")
    assert not [command for command in EVERY if "[]" in shown(bitwright, command)]


def test_former_names_are_hidden_and_work(bitwright: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    skipped = []
    monkeypatch.setattr("bitwright.pipeline.search", lambda settings, *_, **__: skipped.append(settings.skip))
    monkeypatch.setattr("bitwright.open_run", lambda _: sys.exit(0))
    for words in (("--keep", "output*,*attn*"), ("--skip", "output*", "--keep", "*attn*"), ("--skip", "output*,*attn*")):
        assert bitwright("search", "model.gguf", "--out", "nowhere", *words).code == 0
    assert skipped == [("output*", "*attn*")] * 3
    assert "--keep" not in shown(bitwright, "search")
    assert " order " not in shown(bitwright)
    assert "sorted by contribution" in shown(bitwright, "order")
