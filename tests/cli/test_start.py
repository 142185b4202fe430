"""Start of the command: threads wait passively before any library that has them is loaded, unless the user says how they wait."""

import os
from types import SimpleNamespace

import pytest

from bitwright.cli import start

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "THP_MEM_ALLOC_ENABLE")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ["PASSIVE", "10000", "0", "1"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", "", "", "1"]),
        ({"GOMP_SPINCOUNT": "5", "THP_MEM_ALLOC_ENABLE": "0"}, ["PASSIVE", "5", "0", "0"]),
    ],
)
def test_threads_wait_passively_unless_the_user_says_otherwise(said: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def load(name: str) -> SimpleNamespace:
        return SimpleNamespace(main=lambda: seen.append((name, [os.environ.get(each, "") for each in NAMES])))

    monkeypatch.setattr(start, "import_module", load)
    for name in NAMES:
        monkeypatch.setenv(name, said.get(name, ""))
        if name not in said:
            monkeypatch.delenv(name)
    start.main()
    assert seen == [("bitwright.cli.commands", expected)]
