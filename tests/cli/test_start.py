"""Start of the command: threads wait passively before any library that has them is loaded, unless the user says how they wait."""

import os
from types import SimpleNamespace

import pytest

from bitwright.cli import start


@pytest.mark.parametrize(("said", "expected"), [("", "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_unless_the_user_says_otherwise(said: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def load(name: str) -> SimpleNamespace:
        return SimpleNamespace(main=lambda: seen.append((name, os.environ["OMP_WAIT_POLICY"], os.environ["KMP_BLOCKTIME"])))

    monkeypatch.setattr(start, "import_module", load)
    monkeypatch.setenv("OMP_WAIT_POLICY", said)
    monkeypatch.setenv("KMP_BLOCKTIME", "0")
    if not said:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    start.main()
    assert seen == [("bitwright.cli.commands", expected, "0")]
