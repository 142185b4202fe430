"""Examples in docstrings are run, and every module of the package can be imported."""

import doctest
import importlib
from pathlib import Path

import pytest

from tests.syntax_trees import PACKAGE, ROOT

#: imported by the Python of vLLM, which this one need not have
OF_ANOTHER_PYTHON = "bitwright/engines/compressed_tensors/vllm_worker.py"
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*.py"))
WITH_EXAMPLES = [module for module in MODULES if ">>>" in (ROOT / module).read_text(encoding="utf-8")]


def named(module: str) -> str:
    return module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def results(module: str) -> doctest.TestResults:
    return doctest.testmod(importlib.import_module(named(module)))


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_give_what_they_say(module: str) -> None:
    found = results(module)
    assert found.attempted
    assert not found.failed


def test_a_wrong_example_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "of_a_wrong_sum.py").write_text('"""Sums.\n\n>>> 1 + 1\n3\n"""\n', encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert results("of_a_wrong_sum.py").failed == 1
    assert "Expected:" in capsys.readouterr().out


def test_every_module_can_be_imported() -> None:
    assert OF_ANOTHER_PYTHON in MODULES
    for module in MODULES:
        if module != OF_ANOTHER_PYTHON:
            importlib.import_module(named(module))
