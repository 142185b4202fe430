"""The command line as tests run it: its exit code and all that was printed."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from bitwright.cli import commands as cli


@dataclass(frozen=True)
class Ended:
    """Exit code and all that was printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ended]


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`command(...)(*words)` is the command with these words."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def run(*words: object) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["bitwright", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run
